// The life of a forked process: read a command, carry it out, answer. Async-signal-safe throughout.
#pragma once

namespace cowlab {

// Puts this descriptor where the command loop expects it, and closes all others but the standard
// streams.
void keep_only(int channel);

// Serves the channel until its other end is gone.
[[noreturn]] void run_command_loop();

}  // namespace cowlab
