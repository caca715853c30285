// What Node says to a process in the command loop, and what that process answers: fixed records of
// 16 words of 64 bits in the machine's byte order. lib/api/command.ts writes and reads the same
// layout.
#pragma once

#include <cstdint>

#include "selection.h"

namespace cowlab {

enum class Op : uint64_t {
  kHello = 0,  // sent by a new process on its own socket: value = its pid
  kMap = 1,
  kUnmap = 2,
  kUnmapPart = 3,
  kWrite = 4,
  kRead = 5,
  kProtect = 6,
  kAdvise = 7,
  kGrow = 8,
  kFork = 9,
  kWait = 10,
  kExit = 11,
  kRestrict = 12,
  kTrackWrites = 13,  // value = the userfaultfd, which stays open
  kStopTracking = 14,
  // Shared memory (sharing_commands.cc): `address` is a Slot, the words or the first Ring.
  kCount = 20,
  kLook = 21,
  kLock = 22,
  kUnlock = 23,
  kSend = 24,
  kReceive = 25,
};

enum MapFlag : uint64_t {
  kMapShared = 1,
  kMapNoreserve = 2,
  kMapPopulate = 4,
  kMapObject = 8,  // the object's descriptor comes with the command
  kMapHugePages = 16,
  kMapHugetlb = 32,
};

enum ForkFlag : uint64_t {
  kForkReadCommit = 1,  // the reply holds Committed_AS right before and after the fork
  kForkFoldCommit = 2,  // and the CPUs' parts of the counter are folded before it
};

enum RestrictFlag : uint64_t {
  kRestrictToOneCpu = 1,
  kRestrictDropAdmin = 2,  // gives CAP_SYS_ADMIN up
};

struct Command {
  Op op;
  uint64_t address;
  uint64_t length;    // bytes
  uint64_t argument;  // protection, advice, exit code, pid, new length or userfaultfd; of kCount
                      // and kLook: Guard
  uint64_t flags;     // MapFlag, ForkFlag or RestrictFlag
  uint64_t offset;    // bytes into the object
  uint64_t value;     // what kWrite writes
  Selection selection;
  uint64_t gate;        // address of a Gate to pass first, 0 for none
  uint64_t gate_count;  // how many pass it together
};

struct Reply {
  Op op;
  uint64_t error;  // errno, 0 for success
  uint64_t value;  // address, pid, or wait status
  uint64_t minor_faults;
  uint64_t major_faults;
  uint64_t elapsed_ns;
  uint64_t sum;
  uint64_t max_rss_kb;
  uint64_t user_us;
  uint64_t system_us;
  uint64_t syscall;  // FailedCall
  uint64_t committed_before_kb;
  uint64_t committed_after_kb;
  uint64_t dead_owners;  // of the lock that was taken
  uint64_t unused[2];
};

enum class FailedCall : uint64_t {
  kNone,
  kMmap,
  kMunmap,
  kMremap,
  kMprotect,
  kMadvise,
  kFork,
  kWait,
  kOther,
  kSchedSetaffinity,
  kCapset,
  kFutex,
  kMessage,
  kUserfaultfd,
};

static_assert(sizeof(Command) == 128, "a command is 16 words");
static_assert(sizeof(Reply) == 128, "a reply is 16 words");

}  // namespace cowlab
