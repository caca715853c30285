// One VMA of a process, by ioctl(PROCMAP_QUERY) on /proc/PID/maps [fs/proc/task_mmu.c:
// do_procmap_query].
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "result.h"

namespace cowlab {

struct Vma {
  uint64_t start;
  uint64_t end;
  uint64_t flags;   // 1 readable, 2 writable, 4 executable, 8 shared
  uint64_t offset;  // bytes into the file
  uint64_t inode;
  uint64_t device_major;
  uint64_t device_minor;
  std::string name;  // without the escapes of maps
};

// The VMA that holds the address. ENOENT: none does; ESRCH: the process has no memory any more;
// ENOTTY: before Linux 6.11; ENAMETOOLONG: its path is longer than PATH_MAX.
Result<Vma> query_vma(pid_t pid, uint64_t address);

// Whether PROCMAP_QUERY works on this kernel: 0, or the errno.
int probe_procmap_query();

}  // namespace cowlab
