#include "region.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#include "access.h"

namespace cowlab {
namespace {

// Bytes that one page table maps: do_fault_around() never looks beyond it (mm/memory.c).
uint64_t table_bytes() { return page_size() / 8 * page_size(); }

// Guards carry VM_DONTDUMP (smaps `dd`), which no region does: so they never merge with one, not
// even with a PROT_NONE region.
Status place_guard(char* start, uint64_t length) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  if (mmap(start, length, PROT_NONE, flags, -1, 0) == MAP_FAILED) return last_failure("mmap");
  if (madvise(start, length, MADV_DONTDUMP) != 0) return last_failure("madvise");
  return Done{};
}

// Reserves guard + length + guard and returns the aligned start between the guards.
Result<char*> reserve(uint64_t length) {
  const uint64_t page = page_size();
  const uint64_t align = table_bytes();
  const uint64_t total = length + 2 * align;
  void* raw = mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return last_failure("mmap");
  char* start = static_cast<char*>(raw);
  const uint64_t address = reinterpret_cast<uint64_t>(start);
  char* base = start + ((address + page + align - 1) / align * align - address);
  char* low = base - page;
  char* high = base + length + page;
  if (low > start) munmap(start, static_cast<size_t>(low - start));
  if (high < start + total) munmap(high, static_cast<size_t>(start + total - high));
  if (madvise(low, static_cast<size_t>(high - low), MADV_DONTDUMP) != 0) {
    const Failure failure = last_failure("madvise");
    munmap(low, static_cast<size_t>(high - low));
    return failure;
  }
  return base;
}

// What MAP_POPULATE does: writes where it may and a copy would be its own, else reads; errors are
// not reported [mm/gup.c: populate_vma_page_range].
void populate_as_mmap(char* base, const RegionSpec& spec) {
  const bool writes = (spec.protection & PROT_WRITE) != 0 && !spec.shared;
  madvise(base, spec.length, writes ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

}  // namespace

Result<char*> map_region(const RegionSpec& spec) {
  Result<char*> reserved = reserve(spec.length);
  if (!reserved.ok()) return reserved;
  char* base = reserved.value();
  int flags = (spec.shared ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED;
  if (spec.fd < 0) flags |= MAP_ANONYMOUS;
  if (spec.noreserve) flags |= MAP_NORESERVE;
  if (spec.hugetlb) flags |= MAP_HUGETLB;
  // MAP_POPULATE comes before madvise can. Base pages are kept by the process-wide switch; huge
  // ones are populated afterwards.
  const bool populate_base = spec.populate && !spec.huge_pages;
  if (populate_base) flags |= MAP_POPULATE;
  const bool was_disabled = populate_base && prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) > 0;
  if (populate_base && !was_disabled) prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  void* mapped =
      mmap(base, spec.length, spec.protection, flags, spec.fd, static_cast<off_t>(spec.offset));
  const Failure failure = last_failure("mmap");
  if (populate_base && !was_disabled) prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
  if (mapped == MAP_FAILED) {
    unmap_region(base, spec.length);
    return failure;
  }
  // Transparent huge pages are no matter of hugetlb memory [mm/huge_memory.c: hugepage_madvise].
  if (spec.hugetlb) return base;
  if (!spec.huge_pages) {
    // EINVAL means a kernel without huge pages, which is as good.
    madvise(base, spec.length, MADV_NOHUGEPAGE);
    return base;
  }
  if (madvise(base, spec.length, MADV_HUGEPAGE) != 0) {
    const Failure refused = last_failure("madvise");
    unmap_region(base, spec.length);
    return refused;
  }
  if (spec.populate) populate_as_mmap(base, spec);
  return base;
}

Result<char*> grow_region(char* base, uint64_t old_length, uint64_t length) {
  Result<char*> reserved = reserve(length);
  if (!reserved.ok()) return reserved;
  char* target = reserved.value();
  if (mremap(base, old_length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == MAP_FAILED) {
    const Failure failure = last_failure("mremap");
    unmap_region(target, length);
    return failure;
  }
  // The guards alone: what was between them is free, and another thread may have mapped there.
  munmap(base - page_size(), page_size());
  munmap(base + old_length, page_size());
  return target;
}

Status unmap_region(char* base, uint64_t length) {
  if (munmap(base - page_size(), length + 2 * page_size()) != 0) return last_failure("munmap");
  return Done{};
}

Status unmap_part(char* start, uint64_t length) { return place_guard(start, length); }

bool is_known_advice(int advice) {
  switch (advice) {
    case MADV_DONTNEED:
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
      return true;
    default:
      return false;
  }
}

Status blank_region(char* base, uint64_t length) {
  // Mapped aside and then moved: MAP_FIXED would, before Linux 6.12, leave a hole when it is
  // refused the memory.
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* blank = mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (blank == MAP_FAILED) return last_failure("mmap");
  if (mremap(blank, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, base) == MAP_FAILED) {
    const Failure failure = last_failure("mremap");
    munmap(blank, length);
    return failure;
  }
  return Done{};
}

}  // namespace cowlab
