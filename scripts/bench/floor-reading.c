// Floors of reading the memory of others in the text of /proc, and who is read.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "floor.h"

static char text[65536];

static size_t read_whole(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die(path);
  size_t bytes = 0;
  ssize_t got;
  while ((got = read(fd, text, sizeof text)) > 0) bytes += (size_t)got;
  if (got < 0) die(path);
  close(fd);
  return bytes;
}

static void read_each(const char *file, int count, char **pids) {
  while (next_run()) {
    uint64_t start = now_ns();
    for (int i = 0; i < count; i++) {
      char path[64];
      snprintf(path, sizeof path, "/proc/%s/%s", pids[i], file);
      if (read_whole(path) == 0) die(path);
    }
    printf("%" PRIu64 "\n", now_ns() - start);
  }
}

void smaps_floor(char *pid) { read_each("smaps", 1, &pid); }

void rollups_floor(int count, char **pids) { read_each("smaps_rollup", count, pids); }

void stats_floor(void) {
  while (next_run()) {
    uint64_t start = now_ns();
    DIR *proc = opendir("/proc");
    if (proc == NULL) die("/proc");
    struct dirent *entry;
    while ((entry = readdir(proc)) != NULL) {
      if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
      char path[300];
      snprintf(path, sizeof path, "%s/stat", entry->d_name);
      int fd = openat(dirfd(proc), path, O_RDONLY | O_CLOEXEC);
      if (fd < 0) continue;
      while (read(fd, text, sizeof text) > 0) continue;
      close(fd);
    }
    closedir(proc);
    printf("%" PRIu64 "\n", now_ns() - start);
  }
}

// The record at which a read begins is one that did not fit into the kernel's buffer before, and
// for which the VMA was walked twice [fs/seq_file.c: seq_read_iter].
static int begins_a_read(const char *vma) {
  char first[32];
  int length = snprintf(first, sizeof first, "%" PRIxPTR "-", (uintptr_t)vma);
  int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("/proc/self/smaps");
  int found = 0;
  while (!found && read(fd, text, sizeof text) > 0) {
    found = memcmp(text, first, (size_t)length) == 0;
  }
  close(fd);
  return found;
}

void across_target(size_t pages) {
  enum { kFillers = 64 };
  char *fillers = map_pages(kFillers + pages);
  char *region = fillers + kFillers * page_size;
  write_pages(region, pages, 1);
  // The heap must not appear later: it is a record too.
  void *volatile heap = malloc(1);
  free(heap);
  // One VMA more before the region's each time, until its record lies as it is to.
  if (mprotect(region - page_size, page_size, PROT_NONE) != 0) die("mprotect");
  for (size_t i = 0; !begins_a_read(region); i++) {
    if (i == kFillers - 1) die("no record fits");
    if (mprotect(fillers + i * page_size, page_size, i % 2 ? PROT_READ : PROT_NONE) != 0) {
      die("mprotect");
    }
  }
  printf("%d\n", getpid());
  while (next_run()) continue;
}

static void have_faults(char *base, long a_second) {
  struct timespec pause = {0, 1000000000 / a_second};
  for (;;) {
    nanosleep(&pause, NULL);
    if (madvise(base, page_size, MADV_DONTNEED) != 0) _exit(1);
    write_pages(base, 1, 1);
  }
}

void tree_target(size_t processes, size_t pages, long faults_a_second) {
  int ready[2];
  if (pipe(ready) != 0) die("pipe");
  printf("%d", getpid());
  for (size_t i = 0; i < processes; i++) {
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      char *base = map_pages(pages);
      write_pages(base, pages, 1);
      if (write(ready[1], "", 1) != 1) _exit(1);
      if (faults_a_second > 0) have_faults(base, faults_a_second);
      for (;;) pause();
    }
    printf(" %d", child);
  }
  char byte;
  for (size_t i = 0; i < processes; i++) {
    if (read(ready[0], &byte, 1) != 1) die("read");
  }
  printf("\n");
  while (next_run()) continue;
}
