#include "probes.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cstring>

#include "access.h"
#include "fd.h"
#include "region.h"

namespace cowlab {
Result<SystemMemory> system_memory() {
  struct sysinfo info {};
  if (sysinfo(&info) != 0) return last_failure("sysinfo");
  const uint64_t unit = info.mem_unit;
  return SystemMemory{info.totalram * unit / page_size(), info.totalswap * unit / page_size()};
}

Result<bool> forbids_zero_page() {
  RegionSpec spec{};
  spec.length = page_size();
  spec.protection = PROT_READ | PROT_WRITE;
  spec.fd = -1;
  const Result<char*> region = map_region(spec);
  if (!region.ok()) return region.failure();
  char* const page = region.value();
  [[maybe_unused]] const char read = *static_cast<volatile char*>(page);
  Fd pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  uint64_t entry = 0;
  const off_t offset =
      static_cast<off_t>(reinterpret_cast<uint64_t>(page) / page_size() * sizeof(entry));
  ssize_t bytes = -1;
  if (pagemap.valid()) bytes = pread(pagemap.get(), &entry, sizeof(entry), offset);
  const Failure failure = last_failure("pagemap");
  unmap_region(page, page_size());
  if (bytes != static_cast<ssize_t>(sizeof(entry))) return failure;
  // Bit 56: mapped exclusively; the zero page is not [fs/proc/task_mmu.c: pte_to_pagemap_entry].
  return (entry >> 56 & 1) != 0;
}

bool has_cap_sys_admin() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  return (data[0].effective & (1u << CAP_SYS_ADMIN)) != 0;
}

}  // namespace cowlab
