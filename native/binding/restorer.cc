// The lock and the restorer of system settings.
#include "../core/restorer.h"

#include <algorithm>
#include <optional>

#include "../core/swap.h"
#include "arguments.h"
#include "parts.h"

namespace cowlab {
namespace {

std::string text_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsString()) throw_type_error(info.Env(), name);
  return info[index].As<Napi::String>().Utf8Value();
}

// lockFile(path): a descriptor that holds the file's lock, which the caller closes.
Napi::Value lock_file_for_javascript(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Fd fd = unwrap(env, lock_file(text_argument(info, 0, "path must be a string").c_str()));
  const Napi::Number result = Napi::Number::New(env, fd.get());
  fd.release();
  return result;
}

std::optional<RestoreStep::Action> action_named(const std::string& name) {
  if (name == "write") return RestoreStep::kWrite;
  if (name == "remove") return RestoreStep::kRemoveDirectory;
  if (name == "swapoff") return RestoreStep::kRemoveSwap;
  return std::nullopt;
}

// Steps come as strings in threes: 'write', 'remove' or 'swapoff', the path, the value.
std::vector<RestoreStep> steps_argument(const Napi::CallbackInfo& info, size_t index) {
  const char* name = "steps must be an array of strings in threes";
  if (!info[index].IsArray()) throw_type_error(info.Env(), name);
  const Napi::Array array = info[index].As<Napi::Array>();
  if (array.Length() % 3 != 0 || array.Length() > 300) throw_range_error(info.Env(), name);
  std::vector<RestoreStep> steps;
  for (uint32_t i = 0; i < array.Length(); i += 3) {
    std::string part[3];
    for (uint32_t j = 0; j < 3; j++) {
      const Napi::Value value = array[i + j];
      if (!value.IsString()) throw_type_error(info.Env(), name);
      part[j] = value.As<Napi::String>().Utf8Value();
    }
    const std::optional<RestoreStep::Action> action = action_named(part[0]);
    if (!action) throw_range_error(info.Env(), name);
    steps.push_back(RestoreStep{*action, part[1], part[2]});
  }
  return steps;
}

// startRestorer(lock, journalPath, journal, steps, into): `into` holds the pid and our end of the
// socket, which is the caller's from here on. When that is closed, or the caller dies, the steps
// are carried out.
Napi::Value start_restorer_for_javascript(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  RestorerPlan plan;
  plan.lock = fd_argument(info, 0, 0, "lock must be a descriptor");
  plan.journal_path = text_argument(info, 1, "journalPath must be a string");
  if (plan.journal_path.find('/') == std::string::npos) {
    throw_range_error(env, "journalPath must be an absolute path");
  }
  plan.journal = text_argument(info, 2, "journal must be a string");
  plan.steps = steps_argument(info, 3);
  auto into = typed_array_argument<Napi::Float64Array>(info, 4, napi_float64_array, 2,
                                                       "into must be a Float64Array(2)");
  std::vector<pid_t>& restorers = env.GetInstanceData<AddonData>()->restorers;
  restorers.reserve(restorers.size() + 1);
  ForkedProcess process = unwrap(env, start_restorer(plan));
  restorers.push_back(process.pid);
  into[0] = process.pid;
  into[1] = process.channel.release();
  return env.Undefined();
}

// swapOn(path)
Napi::Value swap_on_for_javascript(const Napi::CallbackInfo& info) {
  unwrap(info.Env(), swap_on(text_argument(info, 0, "path must be a string").c_str()));
  return info.Env().Undefined();
}

// swapOff(path): also where it is not on.
Napi::Value swap_off_for_javascript(const Napi::CallbackInfo& info) {
  unwrap(info.Env(), swap_off(text_argument(info, 0, "path must be a string").c_str()));
  return info.Env().Undefined();
}

// reapRestorer(pid): whether it has ended, and has been waited for.
Napi::Value reap_restorer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const pid_t pid = pid_argument(info, 0);
  std::vector<pid_t>& restorers = env.GetInstanceData<AddonData>()->restorers;
  const auto found = std::find(restorers.begin(), restorers.end(), pid);
  if (found == restorers.end()) throw_type_error(env, "pid must be that of a restorer");
  if (!unwrap(env, wait_process(pid)).ended) return Napi::Boolean::New(env, false);
  restorers.erase(found);
  return Napi::Boolean::New(env, true);
}

}  // namespace

void export_restorer(Napi::Env env, Napi::Object exports) {
  exports.Set("lockFile", Napi::Function::New(env, lock_file_for_javascript));
  exports.Set("startRestorer", Napi::Function::New(env, start_restorer_for_javascript));
  exports.Set("swapOn", Napi::Function::New(env, swap_on_for_javascript));
  exports.Set("swapOff", Napi::Function::New(env, swap_off_for_javascript));
  exports.Set("reapRestorer", Napi::Function::New(env, reap_restorer));
}

}  // namespace cowlab
