#include "vma.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdio>

#include "fd.h"

namespace cowlab {
namespace {

// As in linux/fs.h of Linux 6.11, spelled out because older headers lack it.
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

}  // namespace

Result<Vma> query_vma(pid_t pid, uint64_t address) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/maps", pid);
  Fd maps(open(path, O_RDONLY | O_CLOEXEC));
  if (!maps.valid()) return last_failure("open");
  std::array<char, PATH_MAX> name;
  ProcmapQuery query{};
  query.size = sizeof(query);
  query.query_addr = address;
  query.vma_name_addr = reinterpret_cast<uint64_t>(name.data());
  query.vma_name_size = name.size();
  if (ioctl(maps.get(), kProcmapQuery, &query) != 0) return last_failure("ioctl");
  // The size counts the NUL, and is 0 for memory without a name.
  const size_t length = query.vma_name_size > 0 ? query.vma_name_size - 1 : 0;
  return Vma{query.vma_start, query.vma_end,   query.vma_flags, query.vma_offset,
             query.inode,     query.dev_major, query.dev_minor, std::string(name.data(), length)};
}

int probe_procmap_query() {
  const char on_stack = 0;
  const Result<Vma> vma = query_vma(getpid(), reinterpret_cast<uint64_t>(&on_stack));
  return vma.ok() ? 0 : vma.failure().error;
}

}  // namespace cowlab
