#include "process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "access.h"
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

// So that the user's terminal or pipe is not held open by us.
void redirect_standard_streams() {
  const int null_device = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null_device < 0) return;
  for (int fd = 0; fd < 3; fd++) dup2(null_device, fd);
  if (null_device > 2) close(null_device);
}

[[noreturn]] void become_root(int channel, pid_t parent) {
  // The terminal's Ctrl-C is for the harness, which then cleans up; a session of our own keeps it
  // from us.
  setsid();
  reset_signals();
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) _exit(0);
  // Orphaned descendants come to this process, so that none is left to init and each can be waited
  // for.
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  // A limit of 1 byte, not 0, also stops core dumps through a pipe (fs/coredump.c).
  const rlimit no_core{1, 1};
  setrlimit(RLIMIT_CORE, &no_core);
  redirect_standard_streams();
  run_command_loop(channel, Hello::kUnsaid);
}

}  // namespace

pid_t bare_fork() { return static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }

Result<Channel> open_channel() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return last_failure("socketpair");
  }
  return Channel{Fd(ends[0]), Fd(ends[1])};
}

Result<ForkedProcess> fork_process(int channel) {
  if (!prepare_access()) return last_failure("mmap");
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
  if (pid == 0) become_root(channel, parent);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return failure;
  return ForkedProcess{pid, elapsed};
}

Result<WaitReport> wait_process(pid_t pid, uint64_t patience_us) {
  WaitReport report{};
  const uint64_t deadline = now_ns() + patience_us * 1000;
  for (;;) {
    const pid_t waited = wait4(pid, &report.status, WNOHANG, &report.usage);
    if (waited < 0) return last_failure("wait4");
    report.ended = waited == pid;
    if (report.ended || patience_us == 0 || now_ns() >= deadline) return report;
    sched_yield();  // the child may need this very processor to end
  }
}

}  // namespace cowlab
