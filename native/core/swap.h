// Turning swap files on and off: swapon(2), swapoff(2).
#pragma once

#include "result.h"

namespace cowlab {

// EINVAL where the file holds no swap area, or its file system none at all; EPERM without
// CAP_SYS_ADMIN.
Status swap_on(const char* path);

// Brings back all that is there. Nothing is wrong where it is not on, or no such file is there.
// ENOMEM where memory has no room for it, and then it stays on. Async-signal-safe.
Status swap_off(const char* path);

}  // namespace cowlab
