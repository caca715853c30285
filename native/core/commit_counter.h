// Committed_AS as it stands right before and right after a call, read by the process that makes it:
// nothing else of ours runs in between. Async-signal-safe.
#pragma once

#include <cstdint>

#include "fd.h"

namespace cowlab {

class CommitCounter {
 public:
  // Opens what the readings need; 0 or an errno.
  // @param fold Whether the CPUs' parts of the counter are added up before the first reading, as
  //   writing "2" to vm.overcommit_memory does [mm/util.c: overcommit_policy_handler]. Only for a
  //   system that is in that mode.
  int open(bool fold);

  // The sum over all CPUs in kB [mm/util.c: vm_memory_committed]; 0 or an errno.
  int read_before(uint64_t* kb);
  int read_after(uint64_t* kb);

 private:
  int read_kb(uint64_t* kb);

  Fd meminfo_;
  Fd mode_;
};

}  // namespace cowlab
