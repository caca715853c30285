// The addon on anything but Linux: it loads, and lib/native.ts finds nothing in it.
#include <napi.h>

static Napi::Object initialize(Napi::Env, Napi::Object exports) { return exports; }

NODE_API_MODULE(cowlab, initialize)
