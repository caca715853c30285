// The life of a forked process: read a command, carry it out, answer. Async-signal-safe throughout.
#pragma once

namespace cowlab {

// Serves the channel until its other end is gone.
[[noreturn]] void run_command_loop();

}  // namespace cowlab
