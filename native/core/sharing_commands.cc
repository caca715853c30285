#include "sharing_commands.h"

#include <unistd.h>

#include <cerrno>

#include "access.h"
#include "sharing.h"

namespace cowlab {
namespace {

// Without a constructor or destructor to run: a child may not register any.
constinit LockOwner owner;

void fail(Reply* reply, int error, FailedCall call) {
  reply->error = static_cast<uint64_t>(error);
  reply->syscall = static_cast<uint64_t>(call);
}

template <typename T>
T* at(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

// Commands come from TypeScript, which has looked whether the memory is there. What is not aligned
// would be neither atomic nor a futex.
bool is_aligned(const Command& command) {
  return command.address % 8 == 0 && command.offset % 4 == 0 && command.gate % 4 == 0 &&
         (command.op == Op::kLook || command.address % 64 == 0 || command.address == 0);
}

void report_to(Reply* reply, const SharingReport& report, FailedCall call) {
  reply->value = report.done;
  reply->sum = report.sum;
  reply->elapsed_ns = report.elapsed_ns;
  reply->dead_owners = report.dead_owners;
  if (report.error != 0) fail(reply, report.error, call);
}

void do_lock(const Command& command, int channel, Reply* reply) {
  const uint64_t start = now_ns();
  // A length of 0 is a try; beyond a few centuries it is for ever.
  const uint64_t wait_ns = command.length;
  const uint64_t deadline = wait_ns > UINT64_MAX - start ? UINT64_MAX : start + wait_ns;
  const Locked locked = owner.acquire(&at<Slot>(command.address)->lock, deadline, channel);
  reply->elapsed_ns = now_ns() - start;
  if (locked == Locked::kTimedOut) return fail(reply, ETIMEDOUT, FailedCall::kFutex);
  if (locked == Locked::kIsOwner || locked == Locked::kTooMany) {
    return fail(reply, EDEADLK, FailedCall::kFutex);
  }
  reply->dead_owners = locked == Locked::kOwnerDied ? 1 : 0;
}

SharingReport send(const Command& command, int fd, int channel) {
  if (fd >= 0) return send_pipe(fd, command.value);
  return send_ring(at<Ring>(command.address), at<Bell>(command.offset), command.value, channel);
}

SharingReport receive(const Command& command, int fd, int channel) {
  if (fd >= 0) return receive_pipe(fd, command.value, channel);
  return receive_rings(at<Ring>(command.address), command.argument, command.length,
                       at<Bell>(command.offset), command.value, channel);
}

}  // namespace

bool carry_out_sharing(const Command& command, int fd, int channel, Reply* reply) {
  if (command.op < Op::kCount || command.op > Op::kReceive) return false;
  if (!is_aligned(command) || command.argument > 1024) {
    fail(reply, EINVAL, FailedCall::kFutex);
    return true;
  }
  owner.prepare();
  if (command.gate != 0 &&
      !pass_gate(at<Gate>(command.gate), static_cast<uint32_t>(command.gate_count), channel)) {
    _exit(0);
  }
  const Guard guard = static_cast<Guard>(command.argument);
  switch (command.op) {
    case Op::kCount: {
      Slot* slot = at<Slot>(command.address);
      report_to(reply, count_up(slot, guard, command.value, &owner, channel), FailedCall::kFutex);
      break;
    }
    case Op::kLook: {
      const auto* words = at<std::atomic<uint64_t>>(command.address);
      const uint64_t length = command.length / sizeof(uint64_t);
      report_to(
          reply,
          look(words, length, at<Slot>(command.offset), guard, command.value, &owner, channel),
          FailedCall::kFutex);
      break;
    }
    case Op::kLock:
      do_lock(command, channel, reply);
      break;
    case Op::kUnlock:
      if (!owner.release(&at<Slot>(command.address)->lock)) {
        fail(reply, EPERM, FailedCall::kFutex);
      }
      break;
    case Op::kSend:
      report_to(reply, send(command, fd, channel), FailedCall::kMessage);
      break;
    case Op::kReceive:
      report_to(reply, receive(command, fd, channel), FailedCall::kMessage);
      break;
    default:
      return false;
  }
  return true;
}

}  // namespace cowlab
