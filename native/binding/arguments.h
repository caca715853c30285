// From JavaScript values to C++ ones, and from failures to JavaScript errors: the one place that
// throws. TypeScript has validated everything before; these checks are the last line, so that
// nothing JavaScript passes can crash the process.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "../core/result.h"
#include "../core/selection.h"

namespace cowlab {

// What one environment (the main thread's or a worker's) has.
struct AddonData {
  AddonData() = default;
  // The environment ends, so nobody will wait for what it has forked.
  ~AddonData();
  AddonData(const AddonData&) = delete;
  AddonData& operator=(const AddonData&) = delete;

  // The factory of SystemError that lib/native.ts hands over.
  Napi::FunctionReference make_system_error;
  // Forked here and not waited for yet.
  std::vector<pid_t> children;
  // Programs started here: they may outlive the environment.
  std::vector<pid_t> programs;
  // The same of restorers, which must outlive the environment.
  std::vector<pid_t> restorers;
};

[[noreturn]] void throw_failure(Napi::Env env, const Failure& failure);
[[noreturn]] void throw_type_error(Napi::Env env, const char* message);
[[noreturn]] void throw_range_error(Napi::Env env, const char* message);

// The value, or a JavaScript SystemError.
template <typename T>
T unwrap(Napi::Env env, Result<T> result) {
  if (!result.ok()) throw_failure(env, result.failure());
  return std::move(result.value());
}

// A whole number in [min, max], max at most 2^53 - 1, given as a JavaScript number.
uint64_t integer_argument(const Napi::CallbackInfo& info, size_t index, uint64_t min, uint64_t max,
                          const char* name);
// A descriptor, or from -1 on if `min` says so.
int fd_argument(const Napi::CallbackInfo& info, size_t index, int min, const char* name);
bool boolean_argument(const Napi::CallbackInfo& info, size_t index, const char* name);
// An address given as a BigInt: page-aligned, and with `pages` pages behind it inside user space.
uint64_t address_argument(const Napi::CallbackInfo& info, size_t index, uint64_t pages);
// A string without a NUL in it.
std::string string_argument(const Napi::CallbackInfo& info, size_t index, const char* name);
// An array of such strings.
std::vector<std::string> strings_argument(const Napi::CallbackInfo& info, size_t index,
                                          const char* name);
pid_t pid_argument(const Napi::CallbackInfo& info, size_t index);

// The bytes of a typed array of exactly this kind and at least `length` elements, in memory that
// stays put.
template <typename Array>
Array typed_array_argument(const Napi::CallbackInfo& info, size_t index, napi_typedarray_type type,
                           size_t length, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    throw_type_error(info.Env(), name);
  }
  Array array = value.As<Array>();
  if (array.ElementLength() < length) throw_range_error(info.Env(), name);
  return array;
}

// Seven numbers from `index` on: first, pages, from, to, stride, pattern, seed.
Selection selection_argument(const Napi::CallbackInfo& info, size_t index, uint64_t limit_pages);

}  // namespace cowlab
