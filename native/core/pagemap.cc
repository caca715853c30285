#include "pagemap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <vector>

#include "access.h"
#include "pagemap_scan.h"

namespace cowlab {
namespace {

constexpr uint64_t kPresent = 1ULL << 63;
constexpr uint64_t kSwap = 1ULL << 62;
constexpr uint64_t kFileOrShared = 1ULL << 61;
constexpr uint64_t kWriteProtected = 1ULL << 57;
constexpr uint64_t kExclusivelyMapped = 1ULL << 56;
constexpr uint64_t kSoftDirty = 1ULL << 55;
constexpr uint64_t kFrameNumber = (1ULL << 55) - 1;

// Entries read at a time: 64 KiB was the quickest of 4 KiB .. 1 MiB.
constexpr uint64_t kChunkEntries = 8192;

ScanFilter only(PageCategory category) { return ScanFilter{0, category, 0}; }

constexpr PageState state_of(uint64_t entry) {
  if (entry & kPresent) return entry & kExclusivelyMapped ? kExclusive : kShared;
  return entry & kSwap ? kSwapped : kNotPresent;
}

// What looks like a swapped page whose writes userfaultfd tracks. Or it is a page that is not
// there, of which the kernel has noted the same in a swap entry of a kind of its own [mm/memory.c:
// pte_marker_handle_uffd_wp].
bool may_be_marker(uint64_t entry) {
  return (entry & (kPresent | kSwap | kWriteProtected)) == (kSwap | kWriteProtected);
}

// By the swap type, the last of which is the markers' [include/linux/swap.h: SWP_PTE_MARKER]. As
// frame numbers, only CAP_SYS_ADMIN sees it; no swap entry is 0.
PageState state_of_marker(uint64_t entry) {
  constexpr uint64_t kSwapType = 31;
  if ((entry & kFrameNumber) == 0) return kUnknown;
  return (entry & kSwapType) == kSwapType ? kNotPresent : kSwapped;
}

// Present, mapped not exclusively, not of a file: another process's page too, or the zero page.
constexpr bool may_be_zero_page(uint64_t entry) {
  return (entry & (kPresent | kExclusivelyMapped | kFileOrShared)) == kPresent;
}

Status read_entries(int fd, uint64_t index, uint64_t count, uint64_t* entries) {
  char* out = reinterpret_cast<char*>(entries);
  const uint64_t bytes = count * sizeof(uint64_t);
  for (uint64_t done = 0; done < bytes;) {
    const off_t offset = static_cast<off_t>(index * sizeof(uint64_t) + done);
    const ssize_t got = pread(fd, out + done, bytes - done, offset);
    if (got < 0) return last_failure("read");
    // End of file: the process is gone (0 bytes from a dead mm) or the address is beyond user
    // space.
    if (got == 0) return Failure{ESRCH, "read"};
    done += static_cast<uint64_t>(got);
  }
  return Done{};
}

// Four counts side by side in one word, 16 bits each.
constexpr int kPresentLane = 0;
constexpr int kExclusiveLane = 16;
constexpr int kSwappedLane = 32;
constexpr int kDoubtfulLane = 48;
static_assert(kChunkEntries < 1 << 16, "a count of a chunk fits into its lane");

constexpr uint64_t lane_of(uint64_t counts, int lane) { return counts >> lane & 0xffff; }

// By the eight highest bits of an entry, 1 in the lane of each count that the page is in.
constexpr std::array<uint64_t, 256> kCounts = [] {
  std::array<uint64_t, 256> counts{};
  for (uint64_t high = 0; high < counts.size(); high++) {
    const uint64_t entry = high << 56;
    uint64_t& count = counts[high];
    if (entry & kPresent) count |= 1ULL << kPresentLane;
    if (state_of(entry) == kExclusive) count |= 1ULL << kExclusiveLane;
    if (state_of(entry) == kSwapped) count |= 1ULL << kSwappedLane;
    if (may_be_zero_page(entry)) count |= 1ULL << kDoubtfulLane;
  }
  return counts;
}();

// Adds to the totals of the states that the entries, at most a chunk of them, tell. Returns how
// many pages may be the zero page. One look-up a page: taking the bits apart would cost a quarter
// of the kernel's work.
uint64_t count_states(const uint64_t* entries, uint64_t count,
                      std::array<uint64_t, kPageStates>* totals) {
  uint64_t counts = 0;
  for (uint64_t i = 0; i < count; i++) counts += kCounts[entries[i] >> 56];
  const uint64_t present = lane_of(counts, kPresentLane);
  const uint64_t exclusive = lane_of(counts, kExclusiveLane);
  const uint64_t swapped = lane_of(counts, kSwappedLane);
  (*totals)[kNotPresent] += count - present - swapped;
  (*totals)[kExclusive] += exclusive;
  (*totals)[kShared] += present - exclusive;
  (*totals)[kSwapped] += swapped;
  return lane_of(counts, kDoubtfulLane);
}

// Gives pages another state than their entries tell.
class Corrections {
 public:
  Corrections(uint8_t* states, uint64_t* totals) : states_(states), totals_(totals) {}

  void settle(uint64_t first, uint64_t last, PageState state) {
    for (uint64_t page = first; page < last; page++) {
      totals_[states_[page]]--;
      totals_[state]++;
      states_[page] = state;
    }
  }

 private:
  uint8_t* states_;
  uint64_t* totals_;
};

// The pagemap entry of a page of new private memory, written or only read; or an errno.
int entry_of_new_page(bool write, uint64_t* entry) {
  Result<Fd> fd = open_pagemap(0);
  if (!fd.ok()) return fd.failure().error;
  void* page =
      mmap(nullptr, page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return errno;
  // Or it could become part of a neighbour, and a read of it map the huge zero page.
  madvise(page, page_size(), MADV_NOHUGEPAGE);
  volatile char* byte = static_cast<volatile char*>(page);
  if (write) {
    *byte = 1;
  } else {
    static_cast<void>(*byte);
  }
  const uint64_t index = reinterpret_cast<uint64_t>(page) / page_size();
  const Status read = read_entries(fd.value().get(), index, 1, entry);
  munmap(page, page_size());
  return read.ok() ? 0 : read.failure().error;
}

// The zero page is one frame for all on x86 and arm64 (ZERO_PAGE ignores the address), and a read
// of new private memory maps it. 0 where this process may not see frame numbers.
uint64_t zero_page_frame() {
  static std::atomic<uint64_t> known{0};
  uint64_t entry = 0;
  if (known == 0 && entry_of_new_page(false, &entry) == 0 && may_be_zero_page(entry)) {
    known = entry & kFrameNumber;
  }
  return known;
}

// Settles the pages that may be the zero page, of which there is one at least: by their frames,
// where the entries show them [pagemap_open: CAP_SYS_ADMIN], so that nothing can change in between;
// else by PAGEMAP_SCAN. Where there is neither (before Linux 6.7) they are unknown.
void settle_zero_pages(int fd, uint64_t start, const uint64_t* entries, uint64_t count,
                       Corrections* corrections) {
  uint64_t first = 0;
  uint64_t last = count;
  while (!may_be_zero_page(entries[first])) first++;
  while (!may_be_zero_page(entries[last - 1])) last--;
  const uint64_t zero = entries[first] & kFrameNumber ? zero_page_frame() : 0;
  if (zero == 0) {
    const int error = scan_pages(
        fd, start + first * page_size(), last - first, only(kIsZeroPage),
        [&](uint64_t from, uint64_t to) { corrections->settle(first + from, first + to, kZero); });
    if (error == 0) return;
  }
  for (uint64_t i = first; i < last; i++) {
    if (!may_be_zero_page(entries[i])) continue;
    if (zero == 0) corrections->settle(i, i + 1, kUnknown);
    if (zero != 0 && (entries[i] & kFrameNumber) == zero) corrections->settle(i, i + 1, kZero);
  }
}

// Settles the pages of PMD-mapped huge pages. What has come since the entries were read is left.
void settle_huge_pages(int fd, uint64_t start, const uint64_t* entries, uint64_t count,
                       bool check_zero, Corrections* corrections) {
  const auto settle = [&](const ScanFilter& filter, PageState state) {
    scan_pages(fd, start, count, filter, [&](uint64_t first, uint64_t last) {
      for (uint64_t i = first; i < last; i++) {
        if (entries[i] & kPresent) corrections->settle(i, i + 1, state);
      }
    });
  };
  // The huge zero page is known by its entry alone; its pages look like shared ones of a file.
  settle(ScanFilter{kIsZeroPage, kIsHuge | kIsZeroPage, 0}, kUnknown);
  if (check_zero) settle(ScanFilter{0, kIsHuge | kIsZeroPage, 0}, kZero);
}

// Where the kernel tells what a frame is, if that is needed to know the huge zero page: it looks
// like a shared page of a file, and before Linux 6.7 nothing but the flags of its frame says so.
Fd open_frame_flags() {
  if (probe_pagemap_scan() == 0) return Fd();
  return Fd(open("/proc/kpageflags", O_RDONLY | O_CLOEXEC));
}

bool is_zero_frame(int flags_fd, uint64_t frame) {
  // KPF_ZERO_PAGE [include/uapi/linux/kernel-page-flags.h].
  constexpr uint64_t kIsZeroFrame = 1ULL << 24;
  uint64_t flags = 0;
  const off_t offset = static_cast<off_t>(frame * sizeof(flags));
  return pread(flags_fd, &flags, sizeof(flags), offset) == sizeof(flags) &&
         (flags & kIsZeroFrame) != 0;
}

Status frames_of(const uint64_t* entries, const uint8_t* states, uint64_t count, int flags_fd,
                 double* frames) {
  for (uint64_t i = 0; i < count; i++) {
    const bool present = (entries[i] & kPresent) != 0 && states[i] != kZero;
    const uint64_t frame = present ? entries[i] & kFrameNumber : 0;
    if (present && frame == 0) return Failure{EPERM, "pagemap"};
    const bool doubtful = present && states[i] == kShared && (entries[i] & kFileOrShared) != 0;
    const bool is_zero = doubtful && flags_fd >= 0 && is_zero_frame(flags_fd, frame);
    frames[i] = is_zero ? 0 : static_cast<double>(frame);
  }
  return Done{};
}

}  // namespace

Result<Fd> open_pagemap(pid_t pid) {
  char path[64];
  if (pid == 0) {
    snprintf(path, sizeof(path), "/proc/self/pagemap");
  } else {
    snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
  }
  Fd fd(open(path, O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return last_failure("open");
  return fd;
}

Status read_pagemap(int fd, uint64_t address, uint64_t pages, uint64_t* entries) {
  return read_entries(fd, address / page_size(), pages, entries);
}

Status read_pages(int fd, uint64_t address, uint64_t pages, const ScanOptions& options,
                  const PageFigures& into) {
  std::array<uint64_t, kChunkEntries> entries;
  std::array<uint8_t, kChunkEntries> states;
  std::array<uint64_t, kPageStates> totals{};
  const Fd flags = into.frames && options.check_huge ? open_frame_flags() : Fd();
  for (uint64_t done = 0; done < pages;) {
    const uint64_t count = std::min(kChunkEntries, pages - done);
    const uint64_t start = address + done * page_size();
    const Status read = read_pagemap(fd, start, count, entries.data());
    if (!read.ok()) return read;

    const uint64_t swapped_before = totals[kSwapped];
    const uint64_t doubtful = count_states(entries.data(), count, &totals);
    const bool settle_markers = totals[kSwapped] > swapped_before;
    const bool settle_zero = options.check_zero && doubtful > 0;
    if (into.states || into.frames || settle_zero || settle_markers || options.check_huge) {
      for (uint64_t i = 0; i < count; i++) states[i] = state_of(entries[i]);
    }
    Corrections corrections(states.data(), totals.data());
    for (uint64_t i = 0; settle_markers && i < count; i++) {
      if (may_be_marker(entries[i])) corrections.settle(i, i + 1, state_of_marker(entries[i]));
    }
    if (settle_zero) settle_zero_pages(fd, start, entries.data(), count, &corrections);
    if (options.check_huge) {
      settle_huge_pages(fd, start, entries.data(), count, options.check_zero, &corrections);
    }
    if (into.states) memcpy(into.states + done, states.data(), count);
    if (into.frames) {
      const Status told =
          frames_of(entries.data(), states.data(), count, flags.get(), into.frames + done);
      if (!told.ok()) return told;
    }
    done += count;
  }
  if (into.counts) std::copy(totals.begin(), totals.end(), into.counts);
  return Done{};
}

int probe_pagemap_scan() {
  Result<Fd> fd = open_pagemap(0);
  if (!fd.ok()) return fd.failure().error;
  char on_stack = 0;
  const uint64_t here = reinterpret_cast<uint64_t>(&on_stack) / page_size() * page_size();
  return scan_pages(fd.value().get(), here, 1, only(kIsZeroPage), [](uint64_t, uint64_t) {});
}

int probe_page_frame_numbers() {
  uint64_t entry = 0;
  const int error = entry_of_new_page(true, &entry);
  if (error != 0) return error;
  return entry & kFrameNumber ? 0 : EPERM;
}

int probe_soft_dirty() {
  // A page never cleaned since it was mapped has the bit set, where the kernel has the bit at all.
  uint64_t entry = 0;
  const int error = entry_of_new_page(true, &entry);
  if (error != 0) return error;
  return entry & kSoftDirty ? 0 : EOPNOTSUPP;
}

}  // namespace cowlab
