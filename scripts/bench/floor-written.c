// The pages written since a mark, found by one ioctl after another [include/uapi/linux/fs.h of
// Linux 6.7].
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "floor.h"

struct region {
  uint64_t start, end, categories;
};

struct scan {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t inverted, mask, any, returned;
};

void written_floor(const char *pid, uintptr_t address, size_t pages) {
  enum { kRegions = 512, kIsWritten = 1 << 1 };
  static struct region regions[kRegions];
  uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/pagemap", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die(path);
  while (next_run()) {
    uint64_t written = 0;
    uint64_t start = now_ns();
    struct scan scan = {.size = sizeof scan, .start = address, .end = address + pages * page_size};
    scan.vec = (uintptr_t)regions;
    scan.vec_len = kRegions;
    scan.mask = scan.returned = kIsWritten;
    while (scan.start < scan.end) {
      int count = ioctl(fd, _IOWR('f', 16, struct scan), &scan);
      if (count < 0) die("PAGEMAP_SCAN");
      for (int i = 0; i < count; i++) written += (regions[i].end - regions[i].start) / page_size;
      scan.start = scan.walk_end;
    }
    uint64_t elapsed = now_ns() - start;
    printf("%" PRIu64 " %" PRIu64 "\n", elapsed, written);
  }
}
