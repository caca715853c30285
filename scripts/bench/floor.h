// What the floors of the benchmarks have in common.
#pragma once

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

static inline void die(const char *what) {
  perror(what);
  exit(1);
}

static inline uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

// False at the end of standard input, where no more runs are wanted.
static inline int next_run(void) {
  char line[16];
  return fgets(line, sizeof line, stdin) != NULL;
}

static inline void reap(pid_t child) {
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) die("waitpid");
}

// floor.c
extern size_t page_size;
char *map_pages(size_t pages);
void write_pages(char *base, size_t pages, size_t stride);

// floor-reading.c
void smaps_floor(char *pid);
void rollups_floor(int count, char **pids);
void across_target(size_t pages);
void stats_floor(void);
void tree_target(size_t processes, size_t pages, long faults_a_second);

// floor-written.c
void written_floor(const char *pid, uintptr_t address, size_t pages);

// floor-sharing.c
void add_floor(int atomic, uint64_t times, unsigned workers);
void ring_floor(uint64_t messages);
