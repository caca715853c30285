#include "probes.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cstring>

#include "access.h"
#include "fd.h"
#include "region.h"

namespace cowlab {
namespace {

// As in linux/fs.h of Linux 6.11.
struct ProcmapQuery {
  uint64_t size;
  uint64_t query_flags;
  uint64_t query_addr;
  uint64_t vma_start;
  uint64_t vma_end;
  uint64_t vma_flags;
  uint64_t vma_page_size;
  uint64_t vma_offset;
  uint64_t inode;
  uint32_t dev_major;
  uint32_t dev_minor;
  uint32_t vma_name_size;
  uint32_t build_id_size;
  uint64_t vma_name_addr;
  uint64_t build_id_addr;
};
constexpr unsigned long kProcmapQuery = _IOWR('f', 17, ProcmapQuery);

// As in linux/userfaultfd.h.
struct UserfaultfdApi {
  uint64_t api;
  uint64_t features;
  uint64_t ioctls;
};
constexpr unsigned long kUserfaultfdApi = _IOWR(0xAA, 0x3F, UserfaultfdApi);
constexpr uint64_t kUserfaultfdVersion = 0xAA;
constexpr uint64_t kFeatureWpAsync = 1 << 15;
constexpr int kUserModeOnly = 1;

}  // namespace

int probe_procmap_query() {
  Fd maps(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  if (!maps.valid()) return errno;
  ProcmapQuery query{};
  query.size = sizeof(query);
  query.query_addr = reinterpret_cast<uint64_t>(&query);
  return ioctl(maps.get(), kProcmapQuery, &query) == 0 ? 0 : errno;
}

int probe_userfaultfd_wp_async() {
  Fd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | kUserModeOnly)));
  if (!fd.valid()) return errno;
  UserfaultfdApi api{kUserfaultfdVersion, kFeatureWpAsync, 0};
  return ioctl(fd.get(), kUserfaultfdApi, &api) == 0 ? 0 : errno;
}

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
