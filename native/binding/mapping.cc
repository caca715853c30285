// Mapping: memory of Node's own process. The only way JavaScript reaches it is through this object,
// which knows its range, so no address from JavaScript is ever touched.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <memory>

#include "../core/access.h"
#include "../core/fd.h"
#include "../core/region.h"
#include "arguments.h"
#include "parts.h"

namespace cowlab {
namespace {

// Each is three VMAs, and a process that comes to vm.max_map_count (65,530 as a rule) dies in V8,
// whose own mmap fails.
constexpr int kMostRanges = 10000;

// What V8 is told that a mapping weighs, so that it collects forgotten ones in time.
constexpr int64_t kToldBytes = 64 * 1024;

std::atomic<int> live_ranges{0};

// The addresses; unmapped when the mapping and the ArrayBuffer over it have both let go.
struct Range {
  Range(char* start, uint64_t bytes) : base(start), length(bytes) { live_ranges++; }
  ~Range() {
    unmap_region(base, length);
    live_ranges--;
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

  char* base;
  uint64_t length;
};

class Mapping : public Napi::ObjectWrap<Mapping> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Mapping",
                       {
                           InstanceAccessor<&Mapping::address>("address"),
                           InstanceAccessor<&Mapping::length>("length"),
                           InstanceMethod<&Mapping::access>("access"),
                           InstanceMethod<&Mapping::advise>("advise"),
                           InstanceMethod<&Mapping::buffer>("buffer"),
                           InstanceMethod<&Mapping::close>("close"),
                       });
  }

  // new Mapping(pages, sharing is shared, noreserve, populate, fd | -1, offset in pages)
  explicit Mapping(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Mapping>(info) {
    const Napi::Env env = info.Env();
    RegionSpec spec{};
    spec.length = integer_argument(info, 0, 1, kMaxRegionBytes / page_size(),
                                   "pages must be from 1 to 2^34") *
                  page_size();
    spec.protection = PROT_READ | PROT_WRITE;
    spec.shared = boolean_argument(info, 1, "shared must be a boolean");
    spec.noreserve = boolean_argument(info, 2, "noreserve must be a boolean");
    spec.populate = boolean_argument(info, 3, "populate must be a boolean");
    if (!info[4].IsNumber()) throw_type_error(env, "fd must be a number");
    spec.fd = info[4].As<Napi::Number>().Int32Value();
    spec.offset =
        integer_argument(info, 5, 0, 1ULL << 40, "offset must be a whole number of pages") *
        page_size();
    if (spec.fd >= 0) require_safe_object(env, spec);
    if (!prepare_access()) throw_failure(env, last_failure("mmap"));
    if (live_ranges >= kMostRanges) throw_failure(env, Failure{ENOMEM, "mmap"});
    range_ = std::make_shared<Range>(unwrap(env, map_region(spec)), spec.length);
    Napi::MemoryManagement::AdjustExternalMemory(env, kToldBytes);
  }

  ~Mapping() override { let_go(); }

 private:
  // Only a memfd that can never shrink, long enough from the start, can be touched without SIGBUS.
  static void require_safe_object(Napi::Env env, const RegionSpec& spec) {
    const int seals = fcntl(spec.fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
      throw_type_error(env, "fd must be a memfd sealed with F_SEAL_SHRINK");
    }
    const off_t end = lseek(spec.fd, 0, SEEK_END);
    if (end < 0 || static_cast<uint64_t>(end) < spec.offset + spec.length) {
      throw_range_error(env, "the mapping must lie inside the memfd");
    }
  }

  Range& open_range(const Napi::CallbackInfo& info) {
    if (!range_) throw Napi::Error::New(info.Env(), "the mapping has been unmapped");
    return *range_;
  }

  Napi::Value address(const Napi::CallbackInfo& info) {
    return Napi::BigInt::New(info.Env(), reinterpret_cast<uint64_t>(open_range(info).base));
  }

  Napi::Value length(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(open_range(info).length));
  }

  // access(write, selection x 7, value: bigint, into: Float64Array(3)) -> sum of the words read
  Napi::Value access(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Range& range = open_range(info);
    const bool write = boolean_argument(info, 0, "write must be a boolean");
    const Selection selection = selection_argument(info, 1, range.length / page_size());
    if (!info[8].IsBigInt()) throw_type_error(env, "value must be a bigint");
    bool lossless = false;
    const uint64_t value = info[8].As<Napi::BigInt>().Uint64Value(&lossless);
    auto into = typed_array_argument<Napi::Float64Array>(info, 9, napi_float64_array, 3,
                                                         "into must be a Float64Array(3)");
    const AccessReport report = access_pages(write ? AccessKind::kWrite : AccessKind::kRead,
                                             range.base, selection, value, -1);
    into[0] = static_cast<double>(report.minor_faults);
    into[1] = static_cast<double>(report.major_faults);
    into[2] = static_cast<double>(report.elapsed_ns);
    return Napi::BigInt::New(env, report.sum);
  }

  // advise(first page, pages, advice number). Only advice that leaves the memory accessible.
  Napi::Value advise(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Range& range = open_range(info);
    const uint64_t limit = range.length / page_size();
    const uint64_t first =
        integer_argument(info, 0, 0, limit, "first must be a page of the mapping");
    const uint64_t pages =
        integer_argument(info, 1, 0, limit - first, "pages must lie inside the mapping");
    const int advice =
        static_cast<int>(integer_argument(info, 2, 0, 1000, "advice must be a number"));
    switch (advice) {
      case MADV_DONTNEED:
      case MADV_DONTFORK:
      case MADV_DOFORK:
      case MADV_WIPEONFORK:
      case MADV_KEEPONFORK:
      case MADV_POPULATE_READ:
      case MADV_POPULATE_WRITE:
        break;
      default:
        throw_range_error(env, "advice must be one that cowlab knows");
    }
    if (madvise(range.base + first * page_size(), pages * page_size(), advice) != 0) {
      throw_failure(env, last_failure("madvise"));
    }
    return env.Undefined();
  }

  // The one ArrayBuffer over the memory: two over one address would abort V8. TypeScript asks once
  // and keeps it.
  Napi::Value buffer(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    open_range(info);
    if (seen_by_javascript_) throw Napi::Error::New(env, "the mapping has its ArrayBuffer already");
    auto* kept = new std::shared_ptr<Range>(range_);
    Napi::ArrayBuffer created = Napi::ArrayBuffer::New(
        env, range_->base, range_->length,
        [](Napi::Env, void*, std::shared_ptr<Range>* hint) { delete hint; }, kept);
    seen_by_javascript_ = true;
    buffer_ = Napi::Weak(created);
    return created;
  }

  // Gives the memory back. If JavaScript may still see the addresses (also after
  // ArrayBuffer.transfer(), which moves them where nobody can detach them), they stay readable and
  // empty until its buffer is collected.
  Napi::Value close(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!range_) return env.Undefined();
    if (seen_by_javascript_) {
      const Status blanked = blank_region(range_->base, range_->length);
      if (!blanked.ok()) throw_failure(env, blanked.failure());
      Napi::ArrayBuffer seen = buffer_.Value();
      if (!seen.IsEmpty() && !seen.IsDetached()) seen.Detach();
    }
    let_go();
    return env.Undefined();
  }

  void let_go() {
    if (!range_) return;
    range_.reset();
    Napi::MemoryManagement::AdjustExternalMemory(Env(), -kToldBytes);
  }

  std::shared_ptr<Range> range_;
  Napi::Reference<Napi::ArrayBuffer> buffer_;
  bool seen_by_javascript_ = false;
};

}  // namespace

void export_mapping(Napi::Env env, Napi::Object exports) {
  exports.Set("Mapping", Mapping::define(env));
}

}  // namespace cowlab
