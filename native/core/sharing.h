// What processes do with words of shared memory, measured: count, look, and send messages. Each
// operation is a loop that ends when the commander is gone. lib/api/sharing.ts lays the memory out.
#pragma once

#include <atomic>
#include <cstdint>

#include "robust_lock.h"

namespace cowlab {

// A number with the lock that guards it, in a cache line of its own.
struct alignas(64) Slot {
  std::atomic<uint64_t> value;
  uint64_t unused;
  RobustLock lock;
};
static_assert(sizeof(Slot) == 64);

enum class Guard : uint64_t {
  kNone = 0,    // a load and a store, between which another may store
  kAtomic = 1,  // one atomic operation
  kLock = 2,    // under the lock of the slot
};

// One producer and one consumer. Indexes count messages for ever, modulo 2^32.
struct Ring {
  alignas(64) std::atomic<uint32_t> written;
  alignas(64) std::atomic<uint32_t> read;
  std::atomic<uint32_t> full_waiting;  // the producer sleeps until there is room
  alignas(64) uint32_t capacity;       // messages, a power of two
  std::atomic<uint32_t> closed;        // no more messages will come, or be read
  alignas(64) uint64_t messages[];
};
static_assert(sizeof(Ring) == 192);

// Where a consumer of several rings sleeps.
struct Bell {
  std::atomic<uint32_t> waiting;
};

// How many start together: the last to come opens it.
struct Gate {
  std::atomic<uint32_t> arrived;
};

struct SharingReport {
  uint64_t done;         // how many adds, reads or messages
  uint64_t sum;          // of what was read or received
  uint64_t dead_owners;  // how often the last owner of the lock had died with it
  uint64_t elapsed_ns;
  int error;  // 0, or why it ended early
};

// Waits until `count` have come. False when the commander is gone.
bool pass_gate(Gate* gate, uint32_t count, int hangup_fd);

// Adds 1 to the slot's value, so many times, and does nothing else: no clock, no look at anybody.
SharingReport add(Slot* slot, Guard guard, uint64_t times, LockOwner* owner, int hangup_fd);

// The same in batches, measured.
SharingReport count_up(Slot* slot, Guard guard, uint64_t times, LockOwner* owner, int hangup_fd);

// Reads an array of words again and again, `reads` words in all; under the slot's lock, word by
// word, if so guarded.
SharingReport look(const std::atomic<uint64_t>* words, uint64_t length, Slot* slot, Guard guard,
                   uint64_t reads, LockOwner* owner, int hangup_fd);

// Sends 1, 2, 3, ... EPIPE when the ring is closed.
SharingReport send_ring(Ring* ring, Bell* bell, uint64_t messages, int hangup_fd);

// Receives so many messages from each of `count` rings, `stride` bytes apart, and checks that each
// sends 1, 2, 3, ...: EBADMSG where one does not. Ends early, without an error, once a ring is
// closed and empty.
SharingReport receive_rings(Ring* first, uint64_t count, uint64_t stride, Bell* bell,
                            uint64_t messages, int hangup_fd);

// The same through a pipe, of which every writer has an end. A message is 8 bytes.
SharingReport send_pipe(int fd, uint64_t messages);
SharingReport receive_pipe(int fd, uint64_t messages, int hangup_fd);

}  // namespace cowlab
