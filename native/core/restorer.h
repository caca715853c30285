// A process that puts back what its maker changes in the system, whatever becomes of the maker: it
// waits for the other end of its socket to close, which SIGKILL does as well as success.
#pragma once

#include <string>
#include <vector>

#include "process.h"
#include "result.h"

namespace cowlab {

struct RestoreStep {
  enum Action { kWrite, kRemoveDirectory, kRemoveSwap };
  Action action;
  std::string path;
  std::string value;  // what kWrite writes
};

struct RestorerPlan {
  int lock;  // a descriptor that holds the lock of lock_file(); the restorer keeps it
  std::string journal_path;  // where the plan is written down until it has been carried out
  std::string journal;
  std::vector<RestoreStep> steps;  // carried out in this order
};

// What the restorer says on its socket: once when it is ready (step 0, or the errno that kept the
// journal from being written), then for each step that failed (counted from 1).
struct RestorerReport {
  uint64_t step;
  uint64_t error;
};

// Opens the file and takes its lock (flock(2)), which lasts until no copy of the descriptor is
// left. EAGAIN if somebody else has it.
Result<Fd> lock_file(const char* path);

// Forks the restorer and waits until the journal is on the disk. It lives in a session of its own.
Result<ForkedProcess> start_restorer(const RestorerPlan& plan);

}  // namespace cowlab
