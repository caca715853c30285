#include "process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <mutex>
#include <vector>

#include "child.h"
#include "command_loop.h"

namespace cowlab {

void become_root(int channel, pid_t parent) {
  // The terminal's Ctrl-C is for the harness, which then cleans up; a process group of our own
  // keeps it from us.
  setpgid(0, 0);
  reset_signals();
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) _exit(0);
  // A limit of 1 byte, not 0, also stops core dumps through a pipe (fs/coredump.c).
  const rlimit no_core{1, 1};
  setrlimit(RLIMIT_CORE, &no_core);
  keep_only(&channel, 1);
  run_command_loop();
}

Result<Channel> open_channel() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return last_failure("socketpair");
  }
  Channel channel{Fd(ends[0]), Fd(ends[1])};
  // Where standard streams have been closed: libuv never closes a descriptor that looks like one of
  // them.
  for (Fd* end : {&channel.ours, &channel.theirs}) {
    if (end->get() > STDERR_FILENO) continue;
    Fd above(fcntl(end->get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    if (!above.valid()) return last_failure("fcntl");
    *end = std::move(above);
  }
  return channel;
}

Result<ForkedProcess> fork_process() {
  Result<Channel> channel = open_channel();
  if (!channel.ok()) return channel.failure();
  const pid_t parent = getpid();
  const int theirs = channel.value().theirs.get();
  return fork_child(std::move(channel.value()), [=]() { become_root(theirs, parent); });
}

Result<WaitReport> wait_process(pid_t pid) {
  WaitReport report{};
  pid_t waited = wait4(pid, &report.status, WNOHANG, &report.usage);
  if (waited == 0) {
    // It closed its socket moments ago; if it is to finish dying on this very CPU, here is its
    // chance.
    sched_yield();
    waited = wait4(pid, &report.status, WNOHANG, &report.usage);
  }
  if (waited < 0) return last_failure("wait4");
  report.ended = waited == pid;
  return report;
}

namespace {
// The environments of several threads may end at once.
std::mutex adopted_lock;
std::vector<pid_t> adopted;
}  // namespace

void adopt_process(pid_t pid) {
  {
    const std::lock_guard guard(adopted_lock);
    adopted.push_back(pid);
  }
  reap_adopted();
}

void reap_adopted() {
  const std::lock_guard guard(adopted_lock);
  std::erase_if(adopted, [](pid_t pid) { return waitpid(pid, nullptr, WNOHANG) != 0; });
}

void end_process(pid_t pid) {
  kill(pid, SIGKILL);
  while (wait4(pid, nullptr, 0, nullptr) < 0 && errno == EINTR) continue;
}

}  // namespace cowlab
