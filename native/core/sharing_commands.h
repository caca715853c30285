// The commands about shared memory.
#pragma once

#include "command.h"

namespace cowlab {

// False when it is no command of these. `fd` is the pipe of kSend and kReceive, or -1.
bool carry_out_sharing(const Command& command, int fd, int channel, Reply* reply);

}  // namespace cowlab
