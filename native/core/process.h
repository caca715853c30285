// Forking processes that do nothing but carry out commands.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <csignal>
#include <cstdint>

#include "access.h"
#include "bare_fork.h"
#include "fd.h"
#include "result.h"

namespace cowlab {

struct Channel {
  Fd ours;
  Fd theirs;
};

// A socketpair for a process that is to be forked; no end of it takes the place of a standard
// stream.
Result<Channel> open_channel();

struct ForkedProcess {
  pid_t pid;
  Fd channel;  // this side's end of the socketpair
  uint64_t elapsed_ns;
};

// Forks, with every signal blocked, so that no handler of Node's runs in the child before
// reset_signals(). The child runs `run_child`, which must not return; the parent is given its end
// of the channel.
template <typename RunChild>
Result<ForkedProcess> fork_child(Channel channel, const RunChild& run_child) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const uint64_t start = now_ns();
  const pid_t pid = bare_fork();
  const Failure failure = last_failure("fork");
  const uint64_t elapsed = now_ns() - start;
  if (pid == 0) run_child();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return failure;
  return ForkedProcess{pid, std::move(channel.ours), elapsed};
}

// fork()s the calling process. The child enters the command loop and never returns; it goes when
// the other end of its socket does, or when the thread that called this ends.
Result<ForkedProcess> fork_process();

// What a fresh interpreter does in place of its program: it enters the command loop on `channel`,
// and goes when that is closed or when `parent`, which started it, ends.
[[noreturn]] void become_root(int channel, pid_t parent);

struct WaitReport {
  bool ended;
  int status;  // as wait4(2) gives it
  rusage usage;
};

// Does not block: `ended` is false while the child lives.
Result<WaitReport> wait_process(pid_t pid);

// Takes a living child over for which nobody will wait any more, and waits for those taken over
// before that have ended.
void adopt_process(pid_t pid);
void reap_adopted();

// Kills a child and waits for it.
void end_process(pid_t pid);

}  // namespace cowlab
