// The life of a forked process: read a command, carry it out, answer. Async-signal-safe throughout.
#pragma once

namespace cowlab {

// Whether the process tells on its socket that it is there. A child of Node need not: Node has its
// pid.
enum class Hello { kSaid, kUnsaid };

// Keeps only this descriptor, and serves it until its other end is gone.
[[noreturn]] void run_command_loop(int channel, Hello hello);

}  // namespace cowlab
