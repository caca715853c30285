// Touching pages, measured: how many faults it cost and how long it took.
#pragma once

#include <cstdint>

#include "selection.h"

namespace cowlab {

enum class AccessKind { kRead, kWrite };

struct AccessReport {
  uint64_t minor_faults;
  uint64_t major_faults;
  uint64_t elapsed_ns;
  uint64_t sum;  // of the first 64-bit word of each page read
  bool hung_up;  // the commander went away in the middle
};

// Reads or writes the first 64-bit word of every selected page of the memory at `base`.
// Safe in a forked child: only system calls and plain memory. `hangup_fd` (or -1) is looked at now
// and then.
AccessReport access_pages(AccessKind kind, char* base, const Selection& selection, uint64_t value,
                          int hangup_fd);

// True when the other end of the socket is gone.
bool hung_up(int fd);

uint64_t now_ns();
uint64_t page_size();

}  // namespace cowlab
