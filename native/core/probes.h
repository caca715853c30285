// What this kernel and this process's privileges offer. Each probe returns 0, or the errno that it
// met.
#pragma once

#include <cstdint>

#include "result.h"

namespace cowlab {

// PROCMAP_QUERY on /proc/self/maps (Linux 6.11).
int probe_procmap_query();

// userfaultfd(2) with UFFD_USER_MODE_ONLY and the WP_ASYNC feature (Linux 6.7).
int probe_userfaultfd_wp_async();

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
