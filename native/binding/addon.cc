#include <napi.h>

#include "arguments.h"
#include "parts.h"

namespace cowlab {
namespace {

Napi::Value set_error_factory(const Napi::CallbackInfo& info) {
  if (!info[0].IsFunction()) throw_type_error(info.Env(), "the error factory must be a function");
  info.Env().GetInstanceData<AddonData>()->make_system_error =
      Napi::Persistent(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new AddonData());
  exports.Set("setErrorFactory", Napi::Function::New(env, set_error_factory));
  export_mapping(env, exports);
  export_processes(env, exports);
  export_readers(env, exports);
  export_programs(env, exports);
  export_write_mark(env, exports);
  export_restorer(env, exports);
  return exports;
}

}  // namespace
}  // namespace cowlab

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  return cowlab::init(env, exports);
}

NODE_API_MODULE(cowlab, initialize)
