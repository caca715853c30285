// Mapping memory so that a region is one VMA of its own: PROT_NONE guards on both sides, base pages
// unless huge ones are asked for, and a start aligned to a page table, so that neither fault-around
// nor huge pages depend on where the kernel put it. Every function is async-signal-safe.
#pragma once

#include <cstddef>
#include <cstdint>

#include "result.h"

namespace cowlab {

struct RegionSpec {
  uint64_t length;  // bytes, a multiple of the page size
  int protection;   // PROT_*
  bool shared;
  bool noreserve;
  bool populate;
  bool huge_pages;  // MADV_HUGEPAGE, where others have MADV_NOHUGEPAGE
  bool hugetlb;     // MAP_HUGETLB, pages of the default size: the length is a multiple of it
  int fd;           // -1 for anonymous memory
  uint64_t offset;  // bytes
};

// The longest region: with its alignment it must stay well inside a 47-bit address space.
constexpr uint64_t kMaxRegionBytes = 1ULL << 46;

Result<char*> map_region(const RegionSpec& spec);

// Grows by mremap to `length` bytes, at a new address; returns it. The old region is as it was on
// failure.
Result<char*> grow_region(char* base, uint64_t old_length, uint64_t length);

// Unmaps the whole region with its guards.
Status unmap_region(char* base, uint64_t length);

// Takes a part out of a region; a guard stands in its place, so that nothing else can come there.
Status unmap_part(char* start, uint64_t length);

// Whether it is advice that cowlab gives: none of it takes memory away, or harms anybody else
// (MADV_HWPOISON).
bool is_known_advice(int advice);

// Gives the pages back but keeps the addresses readable and writable: for memory JavaScript has a
// view of.
Status blank_region(char* base, uint64_t length);

}  // namespace cowlab
