#include "spawn.h"

#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

#include <csignal>

#include "access.h"
#include "fd.h"

namespace cowlab {
namespace {

// The functions of posix_spawn return their error, and do not set errno.
class Actions {
 public:
  Actions() { note(posix_spawn_file_actions_init(&actions_)); }
  ~Actions() { posix_spawn_file_actions_destroy(&actions_); }
  Actions(const Actions&) = delete;
  Actions& operator=(const Actions&) = delete;

  void place(int from, int to) { note(posix_spawn_file_actions_adddup2(&actions_, from, to)); }
  void close_one(int fd) { note(posix_spawn_file_actions_addclose(&actions_, fd)); }
  void start_in(const char* directory) {
    note(posix_spawn_file_actions_addchdir_np(&actions_, directory));
  }
  void open_null(int fd) {
    note(posix_spawn_file_actions_addopen(&actions_, fd, "/dev/null", O_RDWR, 0));
  }
  // Without it (before glibc 2.34) what is not close-on-exec stays open; all of Node's and ours is.
  void close_from(int first) {
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
    note(posix_spawn_file_actions_addclosefrom_np(&actions_, first));
#endif
#endif
  }

  int error() const { return error_; }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  void note(int error) {
    if (error_ == 0) error_ = error;
  }

  posix_spawn_file_actions_t actions_;
  int error_ = 0;
};

class Attributes {
 public:
  explicit Attributes(bool new_session) {
    error_ = posix_spawnattr_init(&attributes_);
    sigset_t all;
    sigset_t none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    short flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
    if (new_session) flags = static_cast<short>(flags | POSIX_SPAWN_SETSID);
    posix_spawnattr_setflags(&attributes_, flags);
  }
  ~Attributes() { posix_spawnattr_destroy(&attributes_); }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;

  int error() const { return error_; }
  const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_;
  int error_;
};

Failure failed(int error) { return Failure{error, "posix_spawn"}; }

}  // namespace

Result<SpawnedProcess> spawn_program(const SpawnSpec& spec) {
  if (spec.descriptor_count > kMostDescriptors) return failed(EINVAL);
  const int count = static_cast<int>(spec.descriptor_count);
  Actions actions;
  // One may stand where another is to go, so copies of all stand above; adddup2() clears their
  // close-on-exec flag on the way down.
  Fd copies[kMostDescriptors];
  const int above = count > STDERR_FILENO ? count : STDERR_FILENO + 1;
  for (int i = 0; i < count; i++) {
    if (spec.descriptors[i] >= 0) {
      copies[i] = Fd(fcntl(spec.descriptors[i], F_DUPFD_CLOEXEC, above));
      if (!copies[i].valid()) return last_failure("fcntl");
      actions.place(copies[i].get(), i);
    }
  }
  for (int i = 0; i < above; i++) {
    if (i < count && spec.descriptors[i] >= 0) continue;
    if (i <= STDERR_FILENO) {
      actions.open_null(i);
    } else {
      actions.close_one(i);
    }
  }
  actions.close_from(above);
  if (spec.directory) actions.start_in(spec.directory);
  const Attributes attributes(spec.new_session);
  if (const int error = actions.error() != 0 ? actions.error() : attributes.error()) {
    return failed(error);
  }
  pid_t pid = -1;
  char* const* environment = spec.environment ? spec.environment : environ;
  const uint64_t start = now_ns();
  const int error =
      posix_spawnp(&pid, spec.file, actions.get(), attributes.get(), spec.arguments, environment);
  const uint64_t elapsed = now_ns() - start;
  if (error != 0) return failed(error);
  return SpawnedProcess{pid, elapsed};
}

}  // namespace cowlab
