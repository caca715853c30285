// Forking processes that do nothing but carry out commands.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>

#include "fd.h"
#include "result.h"

namespace cowlab {

struct ForkedProcess {
  pid_t pid;
  uint64_t elapsed_ns;
};

struct Channel {
  Fd ours;
  Fd theirs;
};

Result<Channel> open_channel();

// fork(2) without the pthread_atfork handlers, which are for children that go on as Node: libuv's
// would close descriptors that are ours in a child of a child (uv__signal_global_reinit), and all
// of them cost page faults. The child may run async-signal-safe code only.
pid_t bare_fork();

// fork()s the calling process. The child enters the command loop and never returns; it goes when
// the other end of its socket does, or when the thread that called this ends.
// `channel` is its end of the socketpair, which stays open here.
Result<ForkedProcess> fork_process(int channel);

struct WaitReport {
  bool ended;
  int status;  // as wait4(2) gives it
  rusage usage;
};

// `ended` is false if the child still lives after `patience_us` microseconds, which are for one
// that is about to end.
Result<WaitReport> wait_process(pid_t pid, uint64_t patience_us);

}  // namespace cowlab
