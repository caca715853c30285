// Starting another program with posix_spawn(3): the parent's memory is neither copied nor charged,
// however much it has (CLONE_VM with CLONE_VFORK).
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "result.h"

namespace cowlab {

struct SpawnSpec {
  const char* file;          // looked up in PATH unless it has a slash
  char* const* arguments;    // with the name that the program is told, and a null at the end
  char* const* environment;  // likewise; nullptr: that of this process
  const char* directory;     // where it starts; nullptr: where this process is
  const int* descriptors;    // what becomes 0, 1, 2, ... there; -1: nothing
  size_t descriptor_count;
  bool new_session;  // setsid(2)
};

// A descriptor of a standard stream for which there is nothing is /dev/null. The program has no
// other descriptors, default signal handlers, and no signal blocked.
constexpr size_t kMostDescriptors = 64;

struct SpawnedProcess {
  pid_t pid;
  uint64_t elapsed_ns;  // of the call alone
};

// Fails with what execve(2) said, too: posix_spawn returns once the program is there.
Result<SpawnedProcess> spawn_program(const SpawnSpec& spec);

}  // namespace cowlab
