// fork(2) as the kernel has it.
#pragma once

#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace cowlab {

// Without the C library's fork(): that takes the allocator's locks and runs the pthread_atfork
// handlers. Those are Node's; libuv's would make descriptors in the child, and abort where it
// cannot (uv__signal_global_reinit). The child may call nothing that asks for its thread id (raise,
// abort, a recursive lock).
inline pid_t bare_fork() { return static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }

}  // namespace cowlab
