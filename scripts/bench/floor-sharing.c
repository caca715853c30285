// Floors of what processes share: numbers that they add to, and messages.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "floor.h"

enum { kWorkers = 2, kCapacity = 1024 };

struct shared {
  _Alignas(64) _Atomic uint64_t number;
  _Alignas(64) pthread_mutex_t mutex;
  _Alignas(64) atomic_uint arrived;
  _Alignas(64) uint64_t elapsed_ns[kWorkers];
  // One producer, one consumer; each in a cache line of its own.
  _Alignas(64) _Atomic uint64_t written;
  _Alignas(64) _Atomic uint64_t read;
  _Alignas(64) uint64_t messages[kCapacity];
};

static struct shared *map_shared(void) {
  struct shared *shared =
      mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) die("mmap");
  return shared;
}

static void pass_gate(struct shared *shared, unsigned count) {
  atomic_fetch_add(&shared->arrived, 1);
  while (atomic_load(&shared->arrived) < count) continue;
}

static void add_atomic(struct shared *shared, unsigned worker, uint64_t times) {
  (void)worker;
  for (uint64_t i = 0; i < times; i++) {
    atomic_fetch_add_explicit(&shared->number, 1, memory_order_relaxed);
  }
}

static void add_locked(struct shared *shared, unsigned worker, uint64_t times) {
  (void)worker;
  for (uint64_t i = 0; i < times; i++) {
    if (pthread_mutex_lock(&shared->mutex) != 0) die("pthread_mutex_lock");
    uint64_t number = atomic_load_explicit(&shared->number, memory_order_relaxed);
    atomic_store_explicit(&shared->number, number + 1, memory_order_relaxed);
    if (pthread_mutex_unlock(&shared->mutex) != 0) die("pthread_mutex_unlock");
  }
}

// Forks workers that begin together. Each says how long its work took; the longest is what counts.
static void run_workers(struct shared *shared, unsigned workers,
                        void (*work)(struct shared *, unsigned, uint64_t), uint64_t times) {
  pid_t children[kWorkers];
  atomic_store(&shared->arrived, 0);
  for (unsigned i = 0; i < workers; i++) {
    children[i] = fork();
    if (children[i] < 0) die("fork");
    if (children[i] > 0) continue;
    pass_gate(shared, workers);
    uint64_t start = now_ns();
    work(shared, i, times);
    shared->elapsed_ns[i] = now_ns() - start;
    _exit(0);
  }
  uint64_t longest = 0;
  for (unsigned i = 0; i < workers; i++) {
    reap(children[i]);
    if (shared->elapsed_ns[i] > longest) longest = shared->elapsed_ns[i];
  }
  printf("%" PRIu64 " ", longest);
}

void add_floor(int atomic, uint64_t times, unsigned workers) {
  struct shared *shared = map_shared();
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  if (pthread_mutex_init(&shared->mutex, &attributes) != 0) die("pthread_mutex_init");
  while (next_run()) {
    atomic_store(&shared->number, 0);
    run_workers(shared, workers, atomic ? add_atomic : add_locked, times);
    printf("%" PRIu64 "\n", atomic_load(&shared->number));
  }
}

// Worker 0 sends, worker 1 receives. Each looks at the other's index only when its own knowledge of
// it is used up.
static void work_ring(struct shared *shared, unsigned worker, uint64_t messages) {
  if (worker == 0) {
    uint64_t read = 0;
    for (uint64_t i = 0; i < messages; i++) {
      while (i - read == kCapacity) {
        read = atomic_load_explicit(&shared->read, memory_order_acquire);
      }
      shared->messages[i % kCapacity] = i + 1;
      atomic_store_explicit(&shared->written, i + 1, memory_order_release);
    }
    return;
  }
  uint64_t written = 0;
  uint64_t sum = 0;
  for (uint64_t i = 0; i < messages; i++) {
    while (i == written) written = atomic_load_explicit(&shared->written, memory_order_acquire);
    sum += shared->messages[i % kCapacity];
    atomic_store_explicit(&shared->read, i + 1, memory_order_release);
  }
  atomic_store(&shared->number, sum);
}

void ring_floor(uint64_t messages) {
  struct shared *shared = map_shared();
  while (next_run()) {
    atomic_store(&shared->written, 0);
    atomic_store(&shared->read, 0);
    run_workers(shared, 2, work_ring, messages);
    printf("%" PRIu64 "\n", atomic_load(&shared->number));
  }
}
