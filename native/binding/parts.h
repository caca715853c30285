// What each file of the binding adds to the addon's exports.
#pragma once

#include <napi.h>

namespace cowlab {

void export_mapping(Napi::Env env, Napi::Object exports);
void export_processes(Napi::Env env, Napi::Object exports);
void export_readers(Napi::Env env, Napi::Object exports);
void export_programs(Napi::Env env, Napi::Object exports);
void export_write_mark(Napi::Env env, Napi::Object exports);
void export_restorer(Napi::Env env, Napi::Object exports);

}  // namespace cowlab
