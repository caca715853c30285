// Forking processes that do nothing but carry out commands.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>

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

// fork()s the calling process. The child enters the command loop and never returns; it goes when
// the other end of its socket does, or when the thread that called this ends.
Result<ForkedProcess> fork_process();

struct WaitReport {
  bool ended;
  int status;  // as wait4(2) gives it
  rusage usage;
};

// Does not block: `ended` is false while the child lives.
Result<WaitReport> wait_process(pid_t pid);

// Kills a child and waits for it.
void end_process(pid_t pid);

}  // namespace cowlab
