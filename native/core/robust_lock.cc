#include "robust_lock.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>

#include "access.h"

namespace cowlab {
namespace {

// A process that waits looks this often whether anybody still wants it to.
constexpr uint64_t kBetweenLooksNs = 50'000'000;

// So that the kernel, which may come at any instruction, sees list and pending lock in this order.
void in_this_order() { std::atomic_signal_fence(std::memory_order_seq_cst); }

uint32_t thread_id() { return static_cast<uint32_t>(syscall(SYS_gettid)); }

}  // namespace

bool futex_wait(const std::atomic<uint32_t>* word, uint32_t expected, uint64_t timeout_ns) {
  const timespec timeout{static_cast<time_t>(timeout_ns / 1'000'000'000),
                         static_cast<long>(timeout_ns % 1'000'000'000)};
  const long result = syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, nullptr, 0);
  return result == 0 || errno != ETIMEDOUT;
}

void futex_wake(std::atomic<uint32_t>* word, int how_many) {
  syscall(SYS_futex, word, FUTEX_WAKE, how_many, nullptr, nullptr, 0);
}

void LockOwner::prepare() {
  const uint32_t thread = thread_id();
  if (thread_ == thread) return;
  head_.list.next = &head_.list;
  head_.futex_offset =
      static_cast<long>(offsetof(RobustLock, word)) - static_cast<long>(offsetof(RobustLock, node));
  head_.list_op_pending = nullptr;
  held_ = nullptr;
  thread_ = thread;
  syscall(SYS_set_robust_list, &head_, sizeof(head_));
}

void LockOwner::forsake(const char* base, uint64_t length) {
  const char* const held = reinterpret_cast<const char*>(held_);
  if (held_ == nullptr || held < base || held >= base + length) return;
  RobustLock* const lock = held_;
  head_.list.next = &head_.list;
  held_ = nullptr;
  lock->word.store(FUTEX_OWNER_DIED, std::memory_order_release);
  futex_wake(&lock->word, INT_MAX);
}

Locked LockOwner::own(RobustLock* lock, Locked how) {
  lock->node.next = &head_.list;
  head_.list.next = &lock->node;
  in_this_order();
  head_.list_op_pending = nullptr;
  held_ = lock;
  return how;
}

Locked LockOwner::acquire(RobustLock* lock, uint64_t deadline_ns, int hangup_fd) {
  if (held_ == lock) return Locked::kIsOwner;
  if (held_ != nullptr) return Locked::kTooMany;
  // Who dies from here on may have the lock already, and not yet on the list.
  head_.list_op_pending = &lock->node;
  in_this_order();
  uint32_t seen = 0;
  if (lock->word.compare_exchange_strong(seen, thread_, std::memory_order_acquire)) {
    return own(lock, Locked::kYes);
  }
  // Others may wait as well, so whoever has waited owns it with the mark that there are some.
  const uint32_t mine = thread_ | FUTEX_WAITERS;
  for (;;) {
    if ((seen & FUTEX_TID_MASK) == 0) {
      const bool died = (seen & FUTEX_OWNER_DIED) != 0;
      if (lock->word.compare_exchange_weak(seen, mine, std::memory_order_acquire)) {
        return own(lock, died ? Locked::kOwnerDied : Locked::kYes);
      }
      continue;
    }
    if ((seen & FUTEX_WAITERS) == 0 &&
        !lock->word.compare_exchange_weak(seen, seen | FUTEX_WAITERS, std::memory_order_relaxed)) {
      continue;
    }
    const uint64_t now = now_ns();
    if (now >= deadline_ns || (hangup_fd >= 0 && hung_up(hangup_fd))) {
      head_.list_op_pending = nullptr;
      return Locked::kTimedOut;
    }
    futex_wait(&lock->word, seen | FUTEX_WAITERS, std::min(deadline_ns - now, kBetweenLooksNs));
    seen = lock->word.load(std::memory_order_relaxed);
  }
}

bool LockOwner::release(RobustLock* lock) {
  if (held_ != lock) return false;
  // Who dies after the exchange and before the wake-up leaves that to the kernel: a pending lock
  // whose word is 0 [handle_futex_death].
  head_.list_op_pending = &lock->node;
  in_this_order();
  head_.list.next = &head_.list;
  in_this_order();
  held_ = nullptr;
  const uint32_t before = lock->word.exchange(0, std::memory_order_release);
  if ((before & FUTEX_WAITERS) != 0) futex_wake(&lock->word, 1);
  in_this_order();
  head_.list_op_pending = nullptr;
  return true;
}

}  // namespace cowlab
