// Which page frame stands behind each page of a process: only CAP_SYS_ADMIN sees it.
#pragma once

#include <cstdint>

#include "result.h"

namespace cowlab {

// The number of the frame of each page; 0 where there is none of its own: not present, swapped, or
// the zero page, small or huge. `fd` is an open pagemap. EPERM where frames are not shown.
Status read_frames(int fd, uint64_t address, uint64_t pages, double* frames);

}  // namespace cowlab
