// Which pages a process has written since a mark, by userfaultfd's asynchronous write-protection
// (Linux 6.7): the process opens a userfaultfd for a region of its own, and another one
// write-protects the region's pages and looks which have lost that [Documentation/admin-guide/mm/
// pagemap.rst; mm/memory.c: do_wp_page]. No fault waits for anybody.
#pragma once

#include <cstdint>
#include <vector>

#include "result.h"

namespace cowlab {

// The first three run in the marked process, and are async-signal-safe.

// A userfaultfd to which the region is registered. Nothing is write-protected yet.
Result<int> track_writes(char* start, uint64_t length);

void stop_tracking(int fd, char* start, uint64_t length);

// Whether this kernel has what is needed: 0, or an errno.
int probe_userfaultfd_wp_async();

// What tells which pages without write-protection were written. The order is that of MEMORY in
// lib/api/write-tracker.ts.
enum class TrackedMemory : uint8_t {
  kWhole,      // nothing was given back since: all of them
  kAnonymous,  // private
  kObject,     // a private mapping of a file or memfd
  kShared,
};

struct WrittenRun {
  uint64_t first;
  uint64_t pages;
};

// Write-protects all pages, those too that are not there. `strictly`: EPERM where some are not
// tracked, which else are passed over.
Status protect_pages(int pagemap, uint64_t address, uint64_t pages, bool strictly);

// The tracked pages that were written since they were write-protected and have not been given back,
// as ascending runs.
Status find_written(int pagemap, uint64_t address, uint64_t pages, TrackedMemory memory,
                    std::vector<WrittenRun>* runs);

}  // namespace cowlab
