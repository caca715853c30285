// ioctl(PAGEMAP_SCAN) on /proc/PID/pagemap, Linux 6.7 [fs/proc/task_mmu.c: do_pagemap_scan]. As in
// linux/fs.h, spelled out because older headers lack it.
#pragma once

#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <cstdint>

#include "access.h"

namespace cowlab {

enum PageCategory : uint64_t {
  kIsWriteProtectable = 1 << 0,  // of a VMA whose writes userfaultfd tracks
  kIsWritten = 1 << 1,           // and not write-protected there
  kIsFile = 1 << 2,
  kIsPresent = 1 << 3,
  kIsSwapped = 1 << 4,  // neither present nor nothing
  kIsZeroPage = 1 << 5,
  kIsHuge = 1 << 6,
};

enum ScanFlag : uint64_t {
  kScanProtect = 1 << 0,   // write-protects what matches
  kScanStrictly = 1 << 1,  // EPERM where that is not possible, which else is passed over in silence
};

struct ScanArgument {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);

struct ScanRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};

// Which pages are looked for: all categories of `all` and, unless it is 0, one of `any`; those of
// `inverted` count where a page has them not.
struct ScanFilter {
  uint64_t inverted;
  uint64_t all;
  uint64_t any;
};

// No more, or walk_end may be wrong: the kernel gathers 512 regions at a time, goes on while there
// is room, and does not set walk_end where it then comes to the end, so that it stays at an earlier
// stop.
constexpr uint64_t kMaxScanRegions = 512;

// Calls `found(first, last)` with page indices, for every run of pages that the filter lets
// through. 0, or an errno.
template <typename Found>
int scan_pages(int fd, uint64_t address, uint64_t pages, const ScanFilter& filter, Found found) {
  const uint64_t page = page_size();
  std::array<ScanRegion, kMaxScanRegions> regions;
  ScanArgument argument{};
  argument.size = sizeof(argument);
  argument.start = address;
  argument.end = address + pages * page;
  argument.vec = reinterpret_cast<uint64_t>(regions.data());
  argument.vec_len = regions.size();
  argument.category_inverted = filter.inverted;
  argument.category_mask = filter.all;
  argument.category_anyof_mask = filter.any;
  argument.return_mask = filter.all | filter.any;
  while (argument.start < argument.end) {
    const int count = ioctl(fd, kPagemapScan, &argument);
    if (count < 0) return errno;
    for (int i = 0; i < count; i++) {
      const ScanRegion& region = regions[static_cast<size_t>(i)];
      found((region.start - address) / page, (region.end - address) / page);
    }
    if (argument.walk_end <= argument.start) return EIO;
    argument.start = argument.walk_end;
  }
  return 0;
}

}  // namespace cowlab
