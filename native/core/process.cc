#include "process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "access.h"
#include "bare_fork.h"
#include "command_loop.h"

namespace cowlab {
namespace {

void reset_signals() {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; signal++) sigaction(signal, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void become_root(int channel, pid_t parent) {
  // The terminal's Ctrl-C is for the harness, which then cleans up; a process group of our own
  // keeps it from us.
  setpgid(0, 0);
  reset_signals();
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) _exit(0);
  // A limit of 1 byte, not 0, also stops core dumps through a pipe (fs/coredump.c).
  const rlimit no_core{1, 1};
  setrlimit(RLIMIT_CORE, &no_core);
  keep_only(channel);
  run_command_loop();
}

}  // namespace

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

  // No handler of Node's may run in the child before they are reset.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const uint64_t start = now_ns();
  const pid_t pid = bare_fork();
  const Failure failure = last_failure("fork");
  const uint64_t elapsed = now_ns() - start;
  if (pid == 0) become_root(channel.value().theirs.get(), parent);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return failure;
  return ForkedProcess{pid, std::move(channel.value().ours), elapsed};
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

void end_process(pid_t pid) {
  kill(pid, SIGKILL);
  while (wait4(pid, nullptr, 0, nullptr) < 0 && errno == EINTR) continue;
}

}  // namespace cowlab
