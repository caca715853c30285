// The other side of native/core/write_mark.h: protecting the pages of a marked process, and finding
// those that were written.
#include "../core/write_mark.h"

#include "arguments.h"
#include "parts.h"

namespace cowlab {
namespace {

constexpr uint64_t kMaxPages = 1ULL << 34;

struct TrackedPages {
  int pagemap;
  uint64_t address;
  uint64_t pages;
};

// (pagemapFd, address, pages, ...)
TrackedPages pages_argument(const Napi::CallbackInfo& info) {
  const int fd = fd_argument(info, 0, 0, "pagemapFd must be a descriptor");
  const uint64_t pages = integer_argument(info, 2, 1, kMaxPages, "pages must be from 1 to 2^34");
  return TrackedPages{fd, address_argument(info, 1, pages), pages};
}

// protectPages(pagemapFd, address, pages, strictly)
Napi::Value protect(const Napi::CallbackInfo& info) {
  const TrackedPages range = pages_argument(info);
  const bool strictly = boolean_argument(info, 3, "strictly must be a boolean");
  unwrap(info.Env(), protect_pages(range.pagemap, range.address, range.pages, strictly));
  return info.Env().Undefined();
}

// findWritten(pagemapFd, address, pages, memory): first page and length of each run, one after the
// other.
Napi::Value find(const Napi::CallbackInfo& info) {
  const TrackedPages range = pages_argument(info);
  const auto memory =
      static_cast<TrackedMemory>(integer_argument(info, 3, 0, 3, "memory must be from 0 to 3"));
  std::vector<WrittenRun> runs;
  unwrap(info.Env(), find_written(range.pagemap, range.address, range.pages, memory, &runs));
  Napi::Float64Array result = Napi::Float64Array::New(info.Env(), runs.size() * 2);
  double* out = result.Data();
  for (const WrittenRun& run : runs) {
    *out++ = static_cast<double>(run.first);
    *out++ = static_cast<double>(run.pages);
  }
  return result;
}

}  // namespace

void export_write_mark(Napi::Env env, Napi::Object exports) {
  exports.Set("protectPages", Napi::Function::New(env, protect));
  exports.Set("findWritten", Napi::Function::New(env, find));
}

}  // namespace cowlab
