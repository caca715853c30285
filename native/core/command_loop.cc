#include "command_loop.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <csignal>
#include <cstring>
#include <utility>

#include "access.h"
#include "bare_fork.h"
#include "child.h"
#include "command.h"
#include "commit_counter.h"
#include "region.h"
#include "restrict.h"
#include "sharing_commands.h"
#include "write_mark.h"

namespace cowlab {
namespace {

// Where the process keeps its socket once everything else is closed.
constexpr int kChannel = kFirstKept;

// Raising is allowed to everybody: when memory runs out, we and not the user's work are to go.
void volunteer_for_oom_killer() {
  const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  [[maybe_unused]] const ssize_t written = write(fd, "1000", 4);
  close(fd);
}

// What a process of the tree is that does more than to exit. Done once, by the root: its children
// inherit it, but for being the subreaper. To that one orphaned descendants come: none is left to
// init, and each can be waited for.
void settle_in() {
  static bool settled = false;
  if (std::exchange(settled, true)) return;
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  redirect_standard_streams();
  volunteer_for_oom_killer();
}

// Receives one command, and the descriptor that may come with it (else -1). False when the
// commander is gone.
bool receive(Command* command, int* fd) {
  *fd = -1;
  size_t got = 0;
  while (got < sizeof(Command)) {
    iovec part{reinterpret_cast<char*>(command) + got, sizeof(Command) - got};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t bytes = recvmsg(kChannel, &message, MSG_CMSG_CLOEXEC);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return false;
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header;
         header = CMSG_NXTHDR(&message, header)) {
      if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        memcpy(fd, CMSG_DATA(header), sizeof(int));
      }
    }
    got += static_cast<size_t>(bytes);
  }
  return true;
}

void answer(const Reply& reply) {
  size_t sent = 0;
  while (sent < sizeof(Reply)) {
    const ssize_t bytes = send(kChannel, reinterpret_cast<const char*>(&reply) + sent,
                               sizeof(Reply) - sent, MSG_NOSIGNAL);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) _exit(0);
    sent += static_cast<size_t>(bytes);
  }
}

void say_hello() {
  Reply hello{};
  hello.op = Op::kHello;
  hello.value = static_cast<uint64_t>(getpid());
  answer(hello);
}

FailedCall call_named(const char* name) {
  if (strcmp(name, "mmap") == 0) return FailedCall::kMmap;
  if (strcmp(name, "munmap") == 0) return FailedCall::kMunmap;
  if (strcmp(name, "mremap") == 0) return FailedCall::kMremap;
  if (strcmp(name, "madvise") == 0) return FailedCall::kMadvise;
  return FailedCall::kOther;
}

void fail(Reply* reply, int error, FailedCall call) {
  reply->error = static_cast<uint64_t>(error);
  reply->syscall = static_cast<uint64_t>(call);
}

void fail(Reply* reply, const Failure& failure) {
  fail(reply, failure.error, call_named(failure.syscall));
}

char* at(uint64_t address) { return reinterpret_cast<char*>(address); }

// Commands come from TypeScript that has checked them; what it may not ask for is checked once more
// here.
bool is_region(uint64_t address, uint64_t length) {
  const uint64_t page = page_size();
  return address % page == 0 && length % page == 0 && length > 0 && length <= kMaxRegionBytes;
}

void do_map(const Command& command, int fd, Reply* reply) {
  const bool wants_object = (command.flags & kMapObject) != 0;
  if (!is_region(0, command.length) || wants_object != (fd >= 0)) {
    return fail(reply, EINVAL, FailedCall::kMmap);
  }
  RegionSpec spec{};
  spec.length = command.length;
  spec.protection = static_cast<int>(command.argument) & (PROT_READ | PROT_WRITE);
  spec.shared = (command.flags & kMapShared) != 0;
  spec.noreserve = (command.flags & kMapNoreserve) != 0;
  spec.populate = (command.flags & kMapPopulate) != 0;
  spec.huge_pages = (command.flags & kMapHugePages) != 0;
  spec.hugetlb = (command.flags & kMapHugetlb) != 0;
  spec.fd = fd;
  spec.offset = command.offset;
  const Result<char*> base = map_region(spec);
  if (!base.ok()) return fail(reply, base.failure());
  reply->value = reinterpret_cast<uint64_t>(base.value());
}

void do_unmap(const Command& command, Reply* reply) {
  if (!is_region(command.address, command.length)) return fail(reply, EINVAL, FailedCall::kMunmap);
  const Status status = command.op == Op::kUnmap ? unmap_region(at(command.address), command.length)
                                                 : unmap_part(at(command.address), command.length);
  if (!status.ok()) fail(reply, status.failure());
}

void do_access(const Command& command, Reply* reply) {
  if (!is_region(command.address, command.length) ||
      !is_valid(command.selection, command.length / page_size())) {
    return fail(reply, EINVAL, FailedCall::kOther);
  }
  const AccessKind kind = command.op == Op::kWrite ? AccessKind::kWrite : AccessKind::kRead;
  const AccessReport report =
      access_pages(kind, at(command.address), command.selection, command.value, kChannel);
  if (report.hung_up) _exit(0);
  reply->minor_faults = report.minor_faults;
  reply->major_faults = report.major_faults;
  reply->elapsed_ns = report.elapsed_ns;
  reply->sum = report.sum;
}

void do_protect(const Command& command, Reply* reply) {
  const int protection = static_cast<int>(command.argument) & (PROT_READ | PROT_WRITE);
  if (mprotect(at(command.address), command.length, protection) != 0) {
    fail(reply, errno, FailedCall::kMprotect);
  }
}

// Not inlined: the warm-up must run what the measured call runs.
[[gnu::noinline]] int advise_measured(char* start, uint64_t length, int advice, Reply* reply) {
  rusage before{};
  rusage after{};
  getrusage(RUSAGE_THREAD, &before);
  const uint64_t begin = now_ns();
  const int error = madvise(start, length, advice) == 0 ? 0 : errno;
  reply->elapsed_ns = now_ns() - begin;
  getrusage(RUSAGE_THREAD, &after);
  reply->minor_faults = static_cast<uint64_t>(after.ru_minflt - before.ru_minflt);
  reply->major_faults = static_cast<uint64_t>(after.ru_majflt - before.ru_majflt);
  return error;
}

void do_advise(const Command& command, Reply* reply) {
  const int advice = static_cast<int>(command.argument);
  if (command.argument > INT_MAX || !is_known_advice(advice)) {
    return fail(reply, EINVAL, FailedCall::kMadvise);
  }
  // A length of 0 is allowed by madvise(2) and does nothing.
  advise_measured(at(command.address), 0, advice, reply);
  const int error = advise_measured(at(command.address), command.length, advice, reply);
  if (error != 0) fail(reply, error, FailedCall::kMadvise);
}

void do_grow(const Command& command, Reply* reply) {
  if (!is_region(command.address, command.length) || !is_region(0, command.argument) ||
      command.argument <= command.length) {
    return fail(reply, EINVAL, FailedCall::kMremap);
  }
  const Result<char*> base = grow_region(at(command.address), command.length, command.argument);
  if (!base.ok()) return fail(reply, base.failure());
  reply->value = reinterpret_cast<uint64_t>(base.value());
}

void do_fork(const Command& command, int fd, Reply* reply) {
  if (fd < 0) return fail(reply, EBADF, FailedCall::kFork);
  CommitCounter counter;
  const bool counted = (command.flags & kForkReadCommit) != 0;
  if (counted) {
    int unread = counter.open((command.flags & kForkFoldCommit) != 0);
    if (unread == 0) unread = counter.read_before(&reply->committed_before_kb);
    if (unread != 0) return fail(reply, unread, FailedCall::kOther);
  }
  const uint64_t start = now_ns();
  const pid_t pid = bare_fork();
  if (pid == 0) {
    keep_only(&fd, 1);
    say_hello();
    run_command_loop();
  }
  const int error = errno;
  reply->elapsed_ns = now_ns() - start;
  if (counted) counter.read_after(&reply->committed_after_kb);
  if (pid < 0) return fail(reply, error, FailedCall::kFork);
  reply->value = static_cast<uint64_t>(pid);
}

void do_restrict(const Command& command, Reply* reply) {
  if ((command.flags & kRestrictToOneCpu) != 0) {
    if (const int error = stay_on_one_cpu()) fail(reply, error, FailedCall::kSchedSetaffinity);
  }
  if ((command.flags & kRestrictDropAdmin) != 0) {
    if (const int error = drop_cap_sys_admin()) fail(reply, error, FailedCall::kCapset);
  }
}

// The child's socket has closed, so it is about to be a zombie; look at our own commander
// meanwhile.
void do_wait(const Command& command, Reply* reply) {
  const pid_t pid = static_cast<pid_t>(command.argument);
  if (pid <= 0) return fail(reply, EINVAL, FailedCall::kWait);
  rusage usage{};
  int status = 0;
  for (;;) {
    const pid_t waited = wait4(pid, &status, WNOHANG, &usage);
    if (waited < 0) return fail(reply, errno, FailedCall::kWait);
    if (waited == pid) break;
    pollfd look{kChannel, 0, 0};
    if (poll(&look, 1, 1) > 0) _exit(0);
  }
  reply->value = static_cast<uint64_t>(status);
  reply->minor_faults = static_cast<uint64_t>(usage.ru_minflt);
  reply->major_faults = static_cast<uint64_t>(usage.ru_majflt);
  reply->max_rss_kb = static_cast<uint64_t>(usage.ru_maxrss);
  reply->user_us = static_cast<uint64_t>(usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec);
  reply->system_us =
      static_cast<uint64_t>(usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec);
}

void do_track_writes(const Command& command, Reply* reply) {
  if (!is_region(command.address, command.length)) {
    return fail(reply, EINVAL, FailedCall::kUserfaultfd);
  }
  const Result<int> fd = track_writes(at(command.address), command.length);
  if (!fd.ok()) return fail(reply, fd.failure().error, FailedCall::kUserfaultfd);
  reply->value = static_cast<uint64_t>(fd.value());
}

void do_stop_tracking(const Command& command, Reply* reply) {
  if (command.argument <= kChannel || command.argument > INT_MAX) {
    return fail(reply, EBADF, FailedCall::kUserfaultfd);
  }
  stop_tracking(static_cast<int>(command.argument), at(command.address), command.length);
}

void carry_out(const Command& command, int fd, Reply* reply) {
  switch (command.op) {
    case Op::kMap:
      return do_map(command, fd, reply);
    case Op::kUnmap:
    case Op::kUnmapPart:
      return do_unmap(command, reply);
    case Op::kWrite:
    case Op::kRead:
      return do_access(command, reply);
    case Op::kProtect:
      return do_protect(command, reply);
    case Op::kAdvise:
      return do_advise(command, reply);
    case Op::kGrow:
      return do_grow(command, reply);
    case Op::kFork:
      return do_fork(command, fd, reply);
    case Op::kWait:
      return do_wait(command, reply);
    case Op::kExit:
      _exit(static_cast<int>(command.argument));
    case Op::kRestrict:
      return do_restrict(command, reply);
    case Op::kTrackWrites:
      return do_track_writes(command, reply);
    case Op::kStopTracking:
      return do_stop_tracking(command, reply);
    default:
      if (carry_out_sharing(command, fd, kChannel, reply)) return;
      return fail(reply, ENOSYS, FailedCall::kOther);
  }
}

}  // namespace

void run_command_loop() {
  for (;;) {
    Command command;
    int fd = -1;
    if (!receive(&command, &fd)) _exit(0);
    if (command.op != Op::kExit) settle_in();
    Reply reply{};
    reply.op = command.op;
    carry_out(command, fd, &reply);
    if (fd >= 0) close(fd);
    answer(reply);
  }
}

}  // namespace cowlab
