// /proc/PID/stat of every process, in one go: a look at a tree has to find out who is there.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "result.h"

namespace cowlab {

// The lines as they stand, by the order of the directory, but those of some. Processes that end
// meanwhile, or that are hidden from this user [proc(5): hidepid], are left out.
Result<std::vector<std::string>> read_stats(const char* proc_root, std::vector<pid_t> but);

}  // namespace cowlab
