// What this kernel and this process's privileges offer.
#pragma once

#include <cstdint>

#include "result.h"

namespace cowlab {

struct SystemMemory {
  uint64_t total_pages;
  uint64_t swap_pages;
};

// sysinfo(2): the kernel's own figures, also where a container's /proc/meminfo is made up.
Result<SystemMemory> system_memory();

// Whether a read of untouched private memory allocates a page of its own, where others map the zero
// page. Mainline does so for some guests of s390 alone (mm_forbids_zeropage(), Linux 6.10); kernels
// made for virtual machines are known that do it throughout.
Result<bool> forbids_zero_page();

// Whether CAP_SYS_ADMIN is effective, by capget(2).
bool has_cap_sys_admin();

}  // namespace cowlab
