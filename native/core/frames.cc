#include "frames.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "access.h"
#include "fd.h"
#include "pagemap.h"

namespace cowlab {
namespace {

constexpr uint64_t kPresent = 1ULL << 63;
constexpr uint64_t kFileOrShared = 1ULL << 61;
constexpr uint64_t kFrameNumber = (1ULL << 55) - 1;

// KPF_ZERO_PAGE [include/uapi/linux/kernel-page-flags.h].
constexpr uint64_t kIsZeroFrame = 1ULL << 24;

constexpr uint64_t kChunkPages = 8192;

// The huge zero page looks like a shared page of a file, and before Linux 6.7 nothing but the flags
// of its frame says what it is.
bool is_zero_frame(int flags_fd, uint64_t frame) {
  uint64_t flags = 0;
  const off_t offset = static_cast<off_t>(frame * sizeof(flags));
  return pread(flags_fd, &flags, sizeof(flags), offset) == sizeof(flags) &&
         (flags & kIsZeroFrame) != 0;
}

Status read_chunk(int fd, int flags_fd, uint64_t address, uint64_t pages, double* frames) {
  std::array<uint64_t, kChunkPages> entries;
  std::array<uint8_t, kChunkPages> states;
  const Status read = read_pagemap(fd, address, pages, entries.data());
  if (!read.ok()) return read;
  const Status told =
      read_page_states(fd, address, pages, ScanOptions{true, true}, states.data(), nullptr);
  if (!told.ok()) return told;
  for (uint64_t i = 0; i < pages; i++) {
    const uint64_t entry = entries[i];
    const bool present = (entry & kPresent) != 0 && states[i] != kZero;
    const uint64_t frame = present ? entry & kFrameNumber : 0;
    if (present && frame == 0) return Failure{EPERM, "pagemap"};
    const bool doubtful = present && states[i] == kShared && (entry & kFileOrShared) != 0;
    const bool is_zero = doubtful && flags_fd >= 0 && is_zero_frame(flags_fd, frame);
    frames[i] = is_zero ? 0 : static_cast<double>(frame);
  }
  return Done{};
}

}  // namespace

Status read_frames(int fd, uint64_t address, uint64_t pages, double* frames) {
  Fd flags;
  if (probe_pagemap_scan() != 0) flags = Fd(open("/proc/kpageflags", O_RDONLY | O_CLOEXEC));
  for (uint64_t done = 0; done < pages;) {
    const uint64_t count = std::min(kChunkPages, pages - done);
    const Status read =
        read_chunk(fd, flags.get(), address + done * page_size(), count, frames + done);
    if (!read.ok()) return read;
    done += count;
  }
  return Done{};
}

}  // namespace cowlab
