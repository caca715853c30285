#include "sharing.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "access.h"

namespace cowlab {
namespace {

constexpr uint64_t kBetweenLooksNs = 50'000'000;
constexpr uint64_t kForever = UINT64_MAX;

// How many operations are done between two looks at the commander's socket.
constexpr uint64_t kBatch = 4096;

// How often a side of a ring looks once more before it sleeps: to sleep and be woken takes the time
// of hundreds of messages.
constexpr int kLooksBeforeSleep = 2000;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// How many messages at most go by before the other side is woken.
constexpr uint32_t kBeforeWake = 64;

// Between our store and the load of the other's flag: without it each could miss the other's.
void fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

void wake_if_waiting(std::atomic<uint32_t>* waiting) {
  fence();
  if (waiting->load(std::memory_order_relaxed) == 0) return;
  waiting->store(0, std::memory_order_relaxed);
  futex_wake(waiting, INT_MAX);
}

// Adds, or stops early. Not inlined into each other: every kind is a tight loop of its own.
[[gnu::noinline]] uint64_t add_plain(Slot* slot, uint64_t times) {
  for (uint64_t i = 0; i < times; i++) {
    const uint64_t before = slot->value.load(std::memory_order_relaxed);
    slot->value.store(before + 1, std::memory_order_relaxed);
  }
  return times;
}

[[gnu::noinline]] uint64_t add_atomic(Slot* slot, uint64_t times) {
  for (uint64_t i = 0; i < times; i++) slot->value.fetch_add(1, std::memory_order_relaxed);
  return times;
}

bool count_death(Locked locked, SharingReport* report) {
  if (locked == Locked::kOwnerDied) report->dead_owners++;
  return locked == Locked::kYes || locked == Locked::kOwnerDied;
}

int error_of(Locked locked) { return locked == Locked::kTimedOut ? ETIMEDOUT : EDEADLK; }

[[gnu::noinline]] void add_locked(Slot* slot, uint64_t times, LockOwner* owner, int hangup_fd,
                                  SharingReport* report) {
  for (uint64_t i = 0; i < times; i++) {
    const Locked locked = owner->acquire(&slot->lock, kForever, hangup_fd);
    if (!count_death(locked, report)) {
      report->error = error_of(locked);
      return;
    }
    const uint64_t before = slot->value.load(std::memory_order_relaxed);
    slot->value.store(before + 1, std::memory_order_relaxed);
    owner->release(&slot->lock);
    report->done++;
  }
}

uint64_t batch_of(uint64_t left) { return std::min(left, kBatch); }

bool gone(int hangup_fd) { return hangup_fd >= 0 && hung_up(hangup_fd); }

}  // namespace

bool pass_gate(Gate* gate, uint32_t count, int hangup_fd) {
  uint32_t arrived = gate->arrived.fetch_add(1) + 1;
  if (arrived >= count) futex_wake(&gate->arrived, INT_MAX);
  while (arrived < count) {
    if (!futex_wait(&gate->arrived, arrived, kBetweenLooksNs) && gone(hangup_fd)) return false;
    arrived = gate->arrived.load();
  }
  return true;
}

SharingReport add(Slot* slot, Guard guard, uint64_t times, LockOwner* owner, int hangup_fd) {
  SharingReport report{};
  switch (guard) {
    case Guard::kNone:
      report.done = add_plain(slot, times);
      break;
    case Guard::kAtomic:
      report.done = add_atomic(slot, times);
      break;
    case Guard::kLock:
      add_locked(slot, times, owner, hangup_fd, &report);
      break;
  }
  return report;
}

SharingReport count_up(Slot* slot, Guard guard, uint64_t times, LockOwner* owner, int hangup_fd) {
  SharingReport report{};
  const uint64_t start = now_ns();
  while (report.done < times && report.error == 0 && !gone(hangup_fd)) {
    const SharingReport batch = add(slot, guard, batch_of(times - report.done), owner, hangup_fd);
    report.done += batch.done;
    report.dead_owners += batch.dead_owners;
    report.error = batch.error;
  }
  report.elapsed_ns = now_ns() - start;
  return report;
}

SharingReport look(const std::atomic<uint64_t>* words, uint64_t length, Slot* slot, Guard guard,
                   uint64_t reads, LockOwner* owner, int hangup_fd) {
  SharingReport report{};
  const bool locks = guard == Guard::kLock;
  const uint64_t start = now_ns();
  uint64_t at = 0;
  while (report.done < reads && !gone(hangup_fd)) {
    for (uint64_t left = batch_of(reads - report.done); left > 0; left--) {
      if (locks) {
        const Locked locked = owner->acquire(&slot->lock, kForever, hangup_fd);
        if (!count_death(locked, &report)) {
          report.error = error_of(locked);
          return report;
        }
      }
      report.sum += words[at].load(std::memory_order_relaxed);
      if (locks) owner->release(&slot->lock);
      report.done++;
      if (++at == length) at = 0;
    }
  }
  report.elapsed_ns = now_ns() - start;
  return report;
}

SharingReport send_ring(Ring* ring, Bell* bell, uint64_t messages, int hangup_fd) {
  SharingReport report{};
  const uint32_t capacity = ring->capacity;
  uint32_t written = ring->written.load(std::memory_order_relaxed);
  uint32_t read = ring->read.load(std::memory_order_acquire);
  const uint64_t start = now_ns();
  while (report.done < messages) {
    if (written - read == capacity) {
      read = ring->read.load(std::memory_order_acquire);
      if (written - read == capacity) {
        wake_if_waiting(&bell->waiting);
        for (int i = 0; i < kLooksBeforeSleep && written - read == capacity; i++) {
          pause_briefly();
          read = ring->read.load(std::memory_order_acquire);
        }
        if (written - read != capacity) continue;
        if (ring->closed.load() != 0) {
          report.error = EPIPE;
          break;
        }
        ring->full_waiting.store(1, std::memory_order_relaxed);
        fence();
        read = ring->read.load(std::memory_order_acquire);
        if (written - read == capacity && !futex_wait(&ring->full_waiting, 1, kBetweenLooksNs) &&
            gone(hangup_fd)) {
          break;
        }
        continue;
      }
    }
    report.done++;
    ring->messages[written % capacity] = report.done;
    report.sum += report.done;
    written++;
    ring->written.store(written, std::memory_order_release);
    if (written % kBeforeWake == 0) wake_if_waiting(&bell->waiting);
  }
  wake_if_waiting(&bell->waiting);
  report.elapsed_ns = now_ns() - start;
  return report;
}

namespace {

Ring* ring_at(Ring* first, uint64_t stride, uint64_t index) {
  return reinterpret_cast<Ring*>(reinterpret_cast<char*>(first) + stride * index);
}

// The messages that are there, at most `most`; they count up from what was read before.
uint64_t drain(Ring* ring, uint64_t most, SharingReport* report) {
  const uint32_t capacity = ring->capacity;
  uint32_t read = ring->read.load(std::memory_order_relaxed);
  const uint32_t there = ring->written.load(std::memory_order_acquire) - read;
  const uint64_t count = std::min<uint64_t>({there, most, kBeforeWake});
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t message = ring->messages[read % capacity];
    read++;
    if (message % (1ULL << 32) != read) report->error = EBADMSG;
    report->sum += message;
  }
  ring->read.store(read, std::memory_order_release);
  if (count > 0) wake_if_waiting(&ring->full_waiting);
  report->done += count;
  return count;
}

}  // namespace

SharingReport receive_rings(Ring* first, uint64_t count, uint64_t stride, Bell* bell,
                            uint64_t messages, int hangup_fd) {
  SharingReport report{};
  // How far each has come is in the ring: it begins with nothing read.
  const auto left_in = [&](Ring* ring) {
    return messages - ring->read.load(std::memory_order_relaxed);
  };
  const auto drain_all = [&]() {
    uint64_t got = 0;
    for (uint64_t i = 0; i < count; i++) {
      Ring* ring = ring_at(first, stride, i);
      if (left_in(ring) > 0) got += drain(ring, left_in(ring), &report);
    }
    return got;
  };
  const auto any_closed = [&]() {
    for (uint64_t i = 0; i < count; i++) {
      if (ring_at(first, stride, i)->closed.load() != 0) return true;
    }
    return false;
  };
  const uint64_t start = now_ns();
  int looks = 0;
  while (report.done < messages * count && report.error == 0) {
    if (drain_all() > 0) {
      looks = 0;
      continue;
    }
    if (looks++ < kLooksBeforeSleep) {
      pause_briefly();
      continue;
    }
    looks = 0;
    const bool closed = any_closed();
    bell->waiting.store(1, std::memory_order_relaxed);
    fence();
    if (drain_all() > 0) continue;
    if (closed) break;
    if (!futex_wait(&bell->waiting, 1, kBetweenLooksNs) && gone(hangup_fd)) break;
  }
  report.elapsed_ns = now_ns() - start;
  return report;
}

SharingReport send_pipe(int fd, uint64_t messages) {
  SharingReport report{};
  const uint64_t start = now_ns();
  while (report.done < messages) {
    const uint64_t message = report.done + 1;
    // Up to PIPE_BUF bytes a write is whole. Without readers it is EPIPE: SIGPIPE is the default,
    // which ends the process.
    const ssize_t bytes = write(fd, &message, sizeof(message));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes != static_cast<ssize_t>(sizeof(message))) {
      report.error = errno;
      break;
    }
    report.done++;
    report.sum += message;
  }
  report.elapsed_ns = now_ns() - start;
  return report;
}

SharingReport receive_pipe(int fd, uint64_t messages, int hangup_fd) {
  SharingReport report{};
  const uint64_t start = now_ns();
  while (report.done < messages) {
    pollfd look[2] = {{fd, POLLIN, 0}, {hangup_fd, 0, 0}};
    if (poll(look, 2, -1) < 0 && errno != EINTR) {
      report.error = errno;
      break;
    }
    if ((look[1].revents & (POLLHUP | POLLERR)) != 0) break;
    uint64_t batch[64];
    const uint64_t wanted = std::min<uint64_t>(64, messages - report.done);
    const ssize_t bytes = read(fd, batch, wanted * sizeof(uint64_t));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) {
      report.error = bytes < 0 ? errno : 0;  // 0: the last writer is gone
      break;
    }
    // Writes are whole, and so is each message that is read.
    const uint64_t got = static_cast<uint64_t>(bytes) / sizeof(uint64_t);
    for (uint64_t i = 0; i < got; i++) report.sum += batch[i];
    report.done += got;
  }
  report.elapsed_ns = now_ns() - start;
  return report;
}

}  // namespace cowlab
