// Reading /proc/PID/pagemap: what each page of a process is.
// Documentation/admin-guide/mm/pagemap.rst; the bits are set in fs/proc/task_mmu.c,
// pte_to_pagemap_entry().
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "fd.h"
#include "result.h"

namespace cowlab {

// The order is that of PAGE_STATES in lib/proc/pagemap.ts.
enum PageState : uint8_t {
  kNotPresent = 0,
  kExclusive = 1,  // mapped once
  kShared = 2,     // mapped more than once
  kZero = 3,       // the zero page
  kSwapped = 4,
  kUnknown = 5,  // this kernel or privilege does not tell
  kPageStates = 6,
};

// Opens /proc/PID/pagemap; pid 0 means the calling process.
Result<Fd> open_pagemap(pid_t pid);

// Raw entries of `pages` pages from `address` on.
Status read_pagemap(int fd, uint64_t address, uint64_t pages, uint64_t* entries);

struct ScanOptions {
  // Ask PAGEMAP_SCAN which pages are PMD-mapped huge pages, whose bit 56 is wrong, and call them
  // unknown.
  bool check_huge;
  // Find out which pages are the zero page, which the entries show as they show a shared page: by
  // frame number, which needs CAP_SYS_ADMIN, or by PAGEMAP_SCAN where the kernel has it. Without
  // either such pages are unknown; unchecked they count as shared.
  bool check_zero;
};

// What is to be told of some pages, all by one reading of their entries. Each may be null.
struct PageFigures {
  uint8_t* states;   // one a page
  uint64_t* counts;  // kPageStates long
  // The number of the frame of each page; 0 where there is none of its own: not present, swapped,
  // or the zero page, small or huge. EPERM where frames are not shown (CAP_SYS_ADMIN).
  double* frames;
};

Status read_pages(int fd, uint64_t address, uint64_t pages, const ScanOptions& options,
                  const PageFigures& into);

// Whether ioctl(PAGEMAP_SCAN) works on this kernel: 0, or the errno.
int probe_pagemap_scan();

// Whether pagemap shows page frame numbers to this process (CAP_SYS_ADMIN): 0, or an errno.
int probe_page_frame_numbers();

// Whether bit 55 follows a write after clear_refs (CONFIG_MEM_SOFT_DIRTY): 0, or an errno.
int probe_soft_dirty();

}  // namespace cowlab
