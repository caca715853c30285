#include "arguments.h"

#include <cmath>
#include <cstring>
#include <string>

#include "../core/access.h"
#include "../core/process.h"

namespace cowlab {

AddonData::~AddonData() {
  for (const pid_t child : children) end_process(child);
  for (const pid_t program : programs) adopt_process(program);
}

void throw_failure(Napi::Env env, const Failure& failure) {
  AddonData* data = env.GetInstanceData<AddonData>();
  if (data && !data->make_system_error.IsEmpty()) {
    const Napi::Value error = data->make_system_error.Call(
        {Napi::Number::New(env, failure.error), Napi::String::New(env, failure.syscall)});
    if (error.IsObject()) throw Napi::Error(env, error);
  }
  throw Napi::Error::New(env, std::string(failure.syscall) + ": " + strerror(failure.error));
}

void throw_type_error(Napi::Env env, const char* message) {
  throw Napi::TypeError::New(env, message);
}

void throw_range_error(Napi::Env env, const char* message) {
  throw Napi::RangeError::New(env, message);
}

uint64_t integer_argument(const Napi::CallbackInfo& info, size_t index, uint64_t min, uint64_t max,
                          const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsNumber()) throw_type_error(info.Env(), name);
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= static_cast<double>(min) && number <= static_cast<double>(max)) ||
      std::trunc(number) != number) {
    throw_range_error(info.Env(), name);
  }
  return static_cast<uint64_t>(number);
}

int fd_argument(const Napi::CallbackInfo& info, size_t index, int min, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsNumber()) throw_type_error(info.Env(), name);
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= min && number <= 0x7fffffff) || std::trunc(number) != number) {
    throw_range_error(info.Env(), name);
  }
  return static_cast<int>(number);
}

bool boolean_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsBoolean()) throw_type_error(info.Env(), name);
  return info[index].As<Napi::Boolean>().Value();
}

uint64_t address_argument(const Napi::CallbackInfo& info, size_t index, uint64_t pages) {
  const Napi::Value value = info[index];
  if (!value.IsBigInt()) throw_type_error(info.Env(), "address must be a bigint");
  bool lossless = false;
  const uint64_t address = value.As<Napi::BigInt>().Uint64Value(&lossless);
  const uint64_t end_of_user_space = 1ULL << 56;
  if (!lossless || address % page_size() != 0 || address > end_of_user_space ||
      pages > (end_of_user_space - address) / page_size()) {
    throw_range_error(info.Env(), "address must be page-aligned and inside user space");
  }
  return address;
}

std::string string_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsString()) throw_type_error(info.Env(), name);
  std::string text = info[index].As<Napi::String>().Utf8Value();
  if (text.find('\0') != std::string::npos) throw_range_error(info.Env(), name);
  return text;
}

std::vector<std::string> strings_argument(const Napi::CallbackInfo& info, size_t index,
                                          const char* name) {
  if (!info[index].IsArray()) throw_type_error(info.Env(), name);
  const Napi::Array array = info[index].As<Napi::Array>();
  std::vector<std::string> strings;
  for (uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value value = array[i];
    if (!value.IsString()) throw_type_error(info.Env(), name);
    strings.push_back(value.As<Napi::String>().Utf8Value());
    if (strings.back().find('\0') != std::string::npos) throw_range_error(info.Env(), name);
  }
  return strings;
}

pid_t pid_argument(const Napi::CallbackInfo& info, size_t index) {
  return static_cast<pid_t>(
      integer_argument(info, index, 1, 0x7fffffff, "pid must be a positive integer"));
}

Selection selection_argument(const Napi::CallbackInfo& info, size_t index, uint64_t limit_pages) {
  const uint64_t most = 1ULL << 40;
  const char* name = "selection must be seven whole numbers inside the mapping";
  Selection selection{};
  selection.first = integer_argument(info, index, 0, most, name);
  selection.pages = integer_argument(info, index + 1, 0, most, name);
  selection.from = integer_argument(info, index + 2, 0, most, name);
  selection.to = integer_argument(info, index + 3, 0, most, name);
  selection.stride = integer_argument(info, index + 4, 1, most, name);
  selection.pattern = static_cast<Pattern>(integer_argument(info, index + 5, 0, 2, name));
  selection.seed = integer_argument(info, index + 6, 0, 0xffffffff, name);
  if (!is_valid(selection, limit_pages)) throw_range_error(info.Env(), name);
  return selection;
}

}  // namespace cowlab
