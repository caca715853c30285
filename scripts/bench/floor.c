// The floors of the benchmarks: what each measured thing costs in C, by the same system calls on
// the same memory.
//
//   floor fork PAGES                the fork() call of a process with PAGES dirty 4K pages
//   floor fork-huge PAGES           the same, of transparent huge pages
//   floor fork-wait                 fork, _exit in the child, waitpid; nothing mapped
//   floor cow PAGES                 a child's writes to PAGES pages that it shares with its parent
//   floor spawn PAGES               the posix_spawn() call of such a process
//   floor count PID ADDRESS PAGES   counting a region's exclusive and shared pages by pagemap
//   floor written PID ADDRESS PAGES finding the pages of a marked region that were written since
//   floor target PAGES VMAS         no floor, but what is counted: a process with PAGES pages, half
//                                   of them shared, and VMAS other mappings; says pid and address
//   floor smaps PID                 reading smaps to its end, 64 KiB at a time
//   floor rollups PID...            reading the smaps_rollup of each
//   floor stats                     reading the stat of every process there is
//   floor across PAGES              to be read: a VMA whose record in smaps lies across two buffers
//   floor tree PROCESSES PAGES HZ   to be read: children with PAGES pages each, each of which has
//   so
//                                   many faults a second; says all pids
//   floor atomic TIMES WORKERS      adding to one number in WORKERS processes: by atomics,
//   floor mutex TIMES WORKERS       or under a process-shared mutex
//   floor ring MESSAGES             8 bytes each, from one process to another
//
// Each line on standard input makes one run, which answers with one line: nanoseconds, then counts
// if there are any. So the driver decides when a run is, and can alternate runs with ours.
#define _GNU_SOURCE
#include "floor.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

size_t page_size;

char *map_pages(size_t pages) {
  char *base =
      mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) die("mmap");
  // EINVAL is a kernel without transparent huge pages.
  madvise(base, pages * page_size, MADV_NOHUGEPAGE);
  return base;
}

void write_pages(char *base, size_t pages, size_t stride) {
  for (size_t i = 0; i < pages; i += stride) *(volatile uint64_t *)(base + i * page_size) = 1;
}

static char *map_huge_pages(size_t pages) {
  size_t huge = page_size / 8 * page_size;
  size_t length = pages * page_size;
  char *raw = mmap(NULL, length + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) die("mmap");
  char *base = (char *)(((uintptr_t)raw + huge - 1) / huge * huge);
  if (madvise(base, length, MADV_HUGEPAGE) != 0) die("madvise");
  return base;
}

static void fork_floor(char *base, size_t pages) {
  while (next_run()) {
    write_pages(base, pages, 1);
    int hold[2];
    if (pipe(hold) != 0) die("pipe");
    uint64_t start = now_ns();
    pid_t child = fork();
    if (child == 0) {
      // As ours does, the child waits to be told, so that its exit is not beside the end of the
      // call.
      char byte;
      close(hold[1]);
      _exit(read(hold[0], &byte, 1) != 0);
    }
    uint64_t elapsed = now_ns() - start;
    if (child < 0) die("fork");
    close(hold[0]);
    close(hold[1]);
    reap(child);
    printf("%" PRIu64 "\n", elapsed);
  }
}

static void fork_wait_floor(void) {
  while (next_run()) {
    uint64_t start = now_ns();
    pid_t child = fork();
    if (child == 0) _exit(0);
    if (child < 0) die("fork");
    reap(child);
    printf("%" PRIu64 "\n", now_ns() - start);
  }
}

static void spawn_floor(size_t pages) {
  char *base = map_pages(pages);
  while (next_run()) {
    write_pages(base, pages, 1);
    char *argv[] = {"true", NULL};
    char *environment[] = {NULL};
    pid_t child;
    uint64_t start = now_ns();
    int error = posix_spawnp(&child, argv[0], NULL, NULL, argv, environment);
    uint64_t elapsed = now_ns() - start;
    if (error != 0) die("posix_spawnp");
    reap(child);
    printf("%" PRIu64 "\n", elapsed);
  }
}

static void cow_floor(size_t pages) {
  char *base = map_pages(pages);
  char *dummy = map_pages(1);
  write_pages(base, pages, 1);
  int report[2];
  if (pipe(report) != 0) die("pipe");
  while (next_run()) {
    pid_t child = fork();
    if (child == 0) {
      write_pages(dummy, 1, 1);
      now_ns();
      uint64_t start = now_ns();
      write_pages(base, pages, 1);
      uint64_t elapsed = now_ns() - start;
      _exit(write(report[1], &elapsed, sizeof elapsed) != sizeof elapsed);
    }
    if (child < 0) die("fork");
    uint64_t elapsed;
    if (read(report[0], &elapsed, sizeof elapsed) != sizeof elapsed) die("read");
    reap(child);
    printf("%" PRIu64 "\n", elapsed);
  }
}

static void count_floor(const char *pid, uintptr_t address, size_t pages) {
  enum { kChunk = 8192 };
  static uint64_t entries[kChunk];
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/pagemap", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die(path);
  while (next_run()) {
    uint64_t exclusive = 0, shared = 0;
    uint64_t start = now_ns();
    for (size_t done = 0; done < pages;) {
      size_t want = pages - done < kChunk ? pages - done : kChunk;
      off_t offset = (off_t)((address / page_size + done) * sizeof(uint64_t));
      ssize_t got = pread(fd, entries, want * sizeof(uint64_t), offset);
      if (got <= 0) die("pread");
      size_t count = (size_t)got / sizeof(uint64_t);
      for (size_t i = 0; i < count; i++) {
        // Documentation/admin-guide/mm/pagemap.rst: bit 63 is present, bit 56 exclusively mapped.
        uint64_t present = entries[i] >> 63, once = entries[i] >> 56 & 1;
        exclusive += present & once;
        shared += present & ~once;
      }
      done += count;
    }
    uint64_t elapsed = now_ns() - start;
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", elapsed, exclusive, shared);
  }
}

// Pages of alternating protection, which the kernel cannot merge.
static void map_others(size_t vmas) {
  char *base = mmap(NULL, vmas * page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) die("mmap");
  for (size_t i = 0; i < vmas; i += 2) {
    if (mprotect(base + i * page_size, page_size, PROT_READ | PROT_WRITE) != 0) die("mprotect");
    *(volatile char *)(base + i * page_size) = 1;
  }
}

static void target(size_t pages, size_t vmas) {
  char *base = map_pages(pages);
  write_pages(base, pages, 1);
  if (vmas > 0) map_others(vmas);
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    write_pages(base, pages, 2);
    printf("%d %" PRIuPTR "\n", getpid(), (uintptr_t)base);
    fflush(stdout);
    for (;;) pause();
  }
  // Until the driver closes our input; the child dies with us.
  while (next_run()) continue;
}

int main(int argc, char **argv) {
  page_size = (size_t)sysconf(_SC_PAGESIZE);
  setvbuf(stdout, NULL, _IOLBF, 0);
  const char *mode = argc > 1 ? argv[1] : "";
  if (strcmp(mode, "fork") == 0 && argc == 3) {
    size_t pages = strtoull(argv[2], NULL, 10);
    fork_floor(map_pages(pages), pages);
  } else if (strcmp(mode, "fork-huge") == 0 && argc == 3) {
    size_t pages = strtoull(argv[2], NULL, 10);
    fork_floor(map_huge_pages(pages), pages);
  } else if (strcmp(mode, "fork-wait") == 0 && argc == 2) {
    fork_wait_floor();
  } else if (strcmp(mode, "spawn") == 0 && argc == 3) {
    spawn_floor(strtoull(argv[2], NULL, 10));
  } else if (strcmp(mode, "cow") == 0 && argc == 3) {
    cow_floor(strtoull(argv[2], NULL, 10));
  } else if (strcmp(mode, "count") == 0 && argc == 5) {
    count_floor(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
  } else if (strcmp(mode, "written") == 0 && argc == 5) {
    written_floor(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
  } else if (strcmp(mode, "target") == 0 && argc == 4) {
    target(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
  } else if (strcmp(mode, "smaps") == 0 && argc == 3) {
    smaps_floor(argv[2]);
  } else if (strcmp(mode, "rollups") == 0 && argc > 2) {
    rollups_floor(argc - 2, argv + 2);
  } else if (strcmp(mode, "across") == 0 && argc == 3) {
    across_target(strtoull(argv[2], NULL, 10));
  } else if (strcmp(mode, "stats") == 0 && argc == 2) {
    stats_floor();
  } else if (strcmp(mode, "tree") == 0 && argc == 5) {
    tree_target(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10),
                strtol(argv[4], NULL, 10));
  } else if ((strcmp(mode, "atomic") == 0 || strcmp(mode, "mutex") == 0) && argc == 4) {
    unsigned workers = (unsigned)strtoull(argv[3], NULL, 10);
    add_floor(strcmp(mode, "atomic") == 0, strtoull(argv[2], NULL, 10), workers);
  } else if (strcmp(mode, "ring") == 0 && argc == 3) {
    ring_floor(strtoull(argv[2], NULL, 10));
  } else {
    fprintf(stderr, "usage: the first lines of floor.c\n");
    return 2;
  }
  return 0;
}
