// A lock in memory that processes share. The kernel releases it when its owner dies, and the next
// owner is told: robust futexes [Documentation/locking/robust-futexes.rst, kernel/futex/core.c:
// exit_robust_list]. Not pthread's: our processes are made by a bare clone, in which the C library
// does not know its own thread id.
#pragma once

#include <linux/futex.h>

#include <atomic>
#include <cstdint>

namespace cowlab {

struct RobustLock {
  // 0, or the owner's thread id with FUTEX_WAITERS and FUTEX_OWNER_DIED [linux/futex.h].
  std::atomic<uint32_t> word;
  uint32_t unused;
  // Where the owner's list goes on. It means something to the owner alone.
  robust_list node;
};
static_assert(sizeof(RobustLock) == 16, "lib/api/sharing.ts lays it out");
static_assert(std::atomic<uint32_t>::is_always_lock_free, "it lies in shared memory");

enum class Locked {
  kYes,
  kOwnerDied,  // yes, and what it guards is as its last owner left it
  kTimedOut,
  kIsOwner,  // by this thread itself, so that waiting would be for ever
  kTooMany,  // this thread has another one: one at a time
};

// What a thread needs to own locks: one for each, where it stays.
class LockOwner {
 public:
  constexpr LockOwner() = default;
  LockOwner(const LockOwner&) = delete;
  LockOwner& operator=(const LockOwner&) = delete;

  // Waits until `deadline_ns` (CLOCK_MONOTONIC) at most, and looks at `hangup_fd` (or -1) now and
  // then: when the other end is gone it gives up, as if the time were over.
  Locked acquire(RobustLock* lock, uint64_t deadline_ns, int hangup_fd);
  // False when it is not this thread's.
  bool release(RobustLock* lock);

  // To be called by the thread before it uses locks, again after a fork: a child has a copy that
  // says what its parent owned, and the kernel knows of none [copy_process]. Registers the owner
  // with the kernel, in place of what the C library may have there for pthread's robust mutexes, of
  // which neither Node nor we have any.
  void prepare();

  // The memory is about to go: a lock in it that is still held is left as if its owner had died.
  void forsake(const char* base, uint64_t length);

 private:
  Locked own(RobustLock* lock, Locked how);
  robust_list_head head_{};
  uint32_t thread_ = 0;
  RobustLock* held_ = nullptr;
};

// futex(2) between processes. False after the timeout; spurious wake-ups are true.
bool futex_wait(const std::atomic<uint32_t>* word, uint32_t expected, uint64_t timeout_ns);
void futex_wake(std::atomic<uint32_t>* word, int how_many);

}  // namespace cowlab
