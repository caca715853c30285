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
  Fd channel;  // this side's end of the socketpair
  uint64_t elapsed_ns;
};

struct Channel {
  Fd ours;
  Fd theirs;
};

Result<Channel> open_channel();

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

}  // namespace cowlab
