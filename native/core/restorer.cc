#include "restorer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "access.h"
#include "bare_fork.h"
#include "child.h"
#include "swap.h"

namespace cowlab {
namespace {

constexpr int kChannel = kFirstKept;
// The lock is the next one. It is never touched: it ends with the process.

// A cgroup can be removed once its last process has been reaped, which those who end with the maker
// are soon.
constexpr uint64_t kPatienceNs = 30'000'000'000;
constexpr int kPauseMs = 5;

// All that the forked process needs, made before the fork.
struct Prepared {
  const RestorerPlan* plan;
  std::string unfinished;  // the journal under another name until it is whole
  std::string directory;
};

int write_all(int fd, const std::string& text) {
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t bytes = write(fd, text.data() + written, text.size() - written);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return bytes < 0 ? errno : EIO;
    written += static_cast<size_t>(bytes);
  }
  return 0;
}

int sync_directory(const std::string& directory) {
  Fd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd.valid() && fsync(fd.get()) == 0 ? 0 : errno;
}

// After a power cut the journal is there as a whole, or not at all and nothing was changed.
int write_journal(const Prepared& prepared) {
  Fd fd(open(prepared.unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno;
  const int error = write_all(fd.get(), prepared.plan->journal);
  if (error != 0) return error;
  if (fsync(fd.get()) != 0) return errno;
  if (rename(prepared.unfinished.c_str(), prepared.plan->journal_path.c_str()) != 0) return errno;
  return sync_directory(prepared.directory);
}

int write_setting(const RestoreStep& step) {
  Fd fd(open(step.path.c_str(), O_WRONLY | O_CLOEXEC));
  return fd.valid() ? write_all(fd.get(), step.value) : errno;
}

int remove_directory(const RestoreStep& step) {
  return rmdir(step.path.c_str()) == 0 || errno == ENOENT ? 0 : errno;
}

// While its swap is on, a file cannot be removed [fs/namei.c: may_delete], nor may it be.
int remove_swap(const RestoreStep& step) {
  const Status off = swap_off(step.path.c_str());
  if (!off.ok()) return off.failure().error;
  return unlink(step.path.c_str()) == 0 || errno == ENOENT ? 0 : errno;
}

int try_step(const RestoreStep& step) {
  switch (step.action) {
    case RestoreStep::kWrite:
      return write_setting(step);
    case RestoreStep::kRemoveDirectory:
      return remove_directory(step);
    case RestoreStep::kRemoveSwap:
      return remove_swap(step);
  }
  return EINVAL;
}

// A cgroup is busy while it has processes, and max_page_sharing while pages are merged that a
// dying process still maps.
int take_step(const RestoreStep& step) {
  const uint64_t start = now_ns();
  for (;;) {
    const int error = try_step(step);
    if (error != EBUSY || now_ns() - start > kPatienceNs) return error;
    poll(nullptr, 0, kPauseMs);
  }
}

// Nobody may be there any more to hear it.
void say(uint64_t step, int error) {
  const RestorerReport report{step, static_cast<uint64_t>(error)};
  [[maybe_unused]] const ssize_t sent = send(kChannel, &report, sizeof(report), MSG_NOSIGNAL);
}

void wait_for_the_end_of_the_maker() {
  char byte;
  while (recv(kChannel, &byte, 1, 0) > 0 || errno == EINTR) errno = 0;
}

void restore(const Prepared& prepared) {
  const RestorerPlan& plan = *prepared.plan;
  bool failed = false;
  for (size_t i = 0; i < plan.steps.size(); i++) {
    const RestoreStep& step = plan.steps[i];
    const int error = take_step(step);
    if (error == 0) continue;
    failed = true;
    say(i + 1, error);
  }
  // What could not be put back stays written down, for `cowlab doctor --restore`.
  if (failed) return;
  unlink(plan.journal_path.c_str());
  sync_directory(prepared.directory);
}

// Raising a score is for everybody; making it small is for those who may.
void hide_from_oom_killer() {
  Fd fd(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (fd.valid()) write_all(fd.get(), "-1000");
}

[[noreturn]] void become_restorer(const Prepared& prepared, int channel) {
  // Neither the terminal's signals nor those to the maker's process group come here.
  setsid();
  reset_signals();
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2}) {
    ::signal(signal, SIG_IGN);
  }
  prctl(PR_SET_NAME, "cowlab-restorer", 0, 0, 0);
  const int kept[] = {channel, prepared.plan->lock};
  keep_only(kept, 2);
  redirect_standard_streams();
  hide_from_oom_killer();
  const int error = write_journal(prepared);
  say(0, error);
  if (error != 0) _exit(1);
  wait_for_the_end_of_the_maker();
  restore(prepared);
  _exit(0);
}

// The restorer's first report. EPIPE if it ended without one.
int await_ready(int channel) {
  RestorerReport report{};
  size_t got = 0;
  while (got < sizeof(report)) {
    const ssize_t bytes =
        recv(channel, reinterpret_cast<char*>(&report) + got, sizeof(report) - got, 0);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return EPIPE;
    got += static_cast<size_t>(bytes);
  }
  return static_cast<int>(report.error);
}

}  // namespace

Result<Fd> lock_file(const char* path) {
  Fd fd(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return last_failure("open");
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return last_failure("flock");
  return fd;
}

Result<ForkedProcess> start_restorer(const RestorerPlan& plan) {
  const size_t slash = plan.journal_path.rfind('/');
  const Prepared prepared{&plan, plan.journal_path + ".new",
                          plan.journal_path.substr(0, slash + 1)};
  Result<Channel> channel = open_channel();
  if (!channel.ok()) return channel.failure();
  const int theirs = channel.value().theirs.get();
  Result<ForkedProcess> forked =
      fork_child(std::move(channel.value()), [&]() { become_restorer(prepared, theirs); });
  if (!forked.ok()) return forked;
  const int error = await_ready(forked.value().channel.get());
  if (error == 0) return forked;
  end_process(forked.value().pid);
  return Failure{error, "open"};
}

}  // namespace cowlab
