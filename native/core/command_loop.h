// The life of a forked process: read a command, carry it out, answer. Async-signal-safe throughout.
#pragma once

namespace cowlab {

// Keeps only this descriptor, says hello on it, and serves it until its other end is gone.
[[noreturn]] void run_command_loop(int channel);

}  // namespace cowlab
