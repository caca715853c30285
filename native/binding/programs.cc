// Programs of others by posix_spawn, and what a fresh interpreter calls to become one of ours.
#include <unistd.h>

#include <string>
#include <vector>

#include "../core/process.h"
#include "../core/spawn.h"
#include "arguments.h"
#include "parts.h"

namespace cowlab {
namespace {

// Pointers to the strings, as execve(2) wants them.
std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<int> descriptors_argument(const Napi::CallbackInfo& info, size_t index) {
  const char* name = "descriptors must be an Int32Array of at most 64";
  const auto array = typed_array_argument<Napi::Int32Array>(info, index, napi_int32_array, 0, name);
  if (array.ElementLength() > kMostDescriptors) throw_range_error(info.Env(), name);
  return std::vector<int>(array.Data(), array.Data() + array.ElementLength());
}

// spawn(file, arguments, environment | null, directory | null, descriptors, newSession, into):
// `into` holds the pid and how many nanoseconds the call took.
Napi::Value spawn_for_javascript(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string file = string_argument(info, 0, "file must be a string");
  std::vector<std::string> arguments =
      strings_argument(info, 1, "arguments must be an array of strings");
  const bool own_environment = !info[2].IsNull();
  std::vector<std::string> environment;
  if (own_environment) {
    environment = strings_argument(info, 2, "environment must be null or an array of strings");
  }
  std::string directory;
  if (!info[3].IsNull()) directory = string_argument(info, 3, "directory must be null or a string");
  const std::vector<int> descriptors = descriptors_argument(info, 4);
  const bool new_session = boolean_argument(info, 5, "newSession must be a boolean");
  auto into = typed_array_argument<Napi::Float64Array>(info, 6, napi_float64_array, 2,
                                                       "into must be a Float64Array(2)");
  const std::vector<char*> argument_pointers = pointers_to(arguments);
  const std::vector<char*> environment_pointers = pointers_to(environment);
  SpawnSpec spec{};
  spec.file = file.c_str();
  spec.arguments = argument_pointers.data();
  spec.environment = own_environment ? environment_pointers.data() : nullptr;
  spec.directory = info[3].IsNull() ? nullptr : directory.c_str();
  spec.descriptors = descriptors.data();
  spec.descriptor_count = descriptors.size();
  spec.new_session = new_session;
  std::vector<pid_t>& programs = env.GetInstanceData<AddonData>()->programs;
  reap_adopted();
  programs.reserve(programs.size() + 1);
  const SpawnedProcess process = unwrap(env, spawn_program(spec));
  programs.push_back(process.pid);
  into[0] = process.pid;
  into[1] = static_cast<double>(process.elapsed_ns);
  return env.Undefined();
}

// enterCommandLoop(channel, parent): never returns. Only the process that was started for it may.
Napi::Value enter_command_loop(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int channel = fd_argument(info, 0, 0, "channel must be a descriptor");
  const pid_t parent = static_cast<pid_t>(
      integer_argument(info, 1, 1, 0x7fffffff, "parent must be the pid of the process's parent"));
  if (parent != getppid()) throw_range_error(env, "parent must be the pid of the process's parent");
  become_root(channel, parent);
}

}  // namespace

void export_programs(Napi::Env env, Napi::Object exports) {
  exports.Set("spawn", Napi::Function::New(env, spawn_for_javascript));
  exports.Set("enterCommandLoop", Napi::Function::New(env, enter_command_loop));
}

}  // namespace cowlab
