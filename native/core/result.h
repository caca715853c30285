// Result<T>: a value, or the errno of the system call that failed. No exceptions in core.
#pragma once

#include <cerrno>
#include <utility>
#include <variant>

namespace cowlab {

struct Failure {
  int error;            // errno, saved right after the call
  const char* syscall;  // a string literal
};

template <typename T>
class Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Failure failure) : state_(std::in_place_index<1>, failure) {}

  bool ok() const { return state_.index() == 0; }
  T& value() { return *std::get_if<0>(&state_); }
  const T& value() const { return *std::get_if<0>(&state_); }
  const Failure& failure() const { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Failure> state_;
};

struct Done {};
using Status = Result<Done>;

inline Failure last_failure(const char* syscall) { return Failure{errno, syscall}; }

}  // namespace cowlab
