// What every process that is forked from Node does first. Async-signal-safe throughout.
#pragma once

namespace cowlab {

// Handlers and blocked signals are Node's: back to the defaults.
void reset_signals();

// So that the user's terminal or pipe is not held open by us.
void redirect_standard_streams();

// Moves the descriptors to 3, 4, ... and closes all others but the standard streams.
void keep_only(const int* descriptors, int count);

// Where keep_only() puts the first of them.
constexpr int kFirstKept = 3;

}  // namespace cowlab
