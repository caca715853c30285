// Mapping: memory of Node's own process. The only way JavaScript reaches it is through this object,
// which knows its range, so no address from JavaScript is ever touched.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <atomic>
#include <memory>

#include "../core/access.h"
#include "../core/fd.h"
#include "../core/region.h"
#include "../core/sharing.h"
#include "arguments.h"
#include "parts.h"

namespace cowlab {
namespace {

constexpr long kTmpfsMagic = 0x01021994;  // linux/magic.h

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
    if (abandoned) return;
    unmap_region(base, length);
    live_ranges--;
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

  // JavaScript outside this environment may see the addresses for ever: their pages go, they
  // themselves stay.
  void abandon() {
    blank_region(base, length);
    abandoned = true;
  }

  char* base;
  uint64_t length;
  bool abandoned = false;
};

// The ArrayBuffer over a range. The buffer itself, as Node's backing store, and the mapping have a
// share each.
struct Shown {
  std::shared_ptr<Range> range;
  Napi::Reference<Napi::ArrayBuffer> buffer;  // weak
  bool detached = false;                      // by Mapping::close()
};

// Locks are owned by threads. A thread that ends leaves its memory to the kernel until that has
// looked for them, so nothing is to be done here then.
LockOwner* lock_owner() {
  static thread_local constinit LockOwner owner;
  static thread_local constinit bool prepared = false;
  // Once: a forked child never comes here.
  if (!prepared) owner.prepare();
  prepared = true;
  return &owner;
}

// Whether JavaScript can run no more here: the main thread's last moments, or a worker's.
bool is_ending(napi_env env) {
  napi_value object = nullptr;
  bool found = false;
  return napi_create_object(env, &object) != napi_ok ||
         napi_has_named_property(env, object, "x", &found) != napi_ok;
}

// Node calls this when the memory can be seen no more, and also when the environment ends. Then it
// can be seen still if ArrayBuffer.transfer() has taken it out of our buffer: what that returns may
// have been sent to another thread.
void release_buffer(napi_env env, void*, void* data) {
  const std::unique_ptr<std::shared_ptr<Shown>> share(static_cast<std::shared_ptr<Shown>*>(data));
  const Shown& shown = **share;
  if (!shown.detached && is_ending(env)) shown.range->abandon();
}

class Mapping : public Napi::ObjectWrap<Mapping> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Mapping",
                       {
                           // Methods and no accessors: V8 checks `this` for methods only.
                           InstanceMethod<&Mapping::address>("address"),
                           InstanceMethod<&Mapping::access>("access"),
                           InstanceMethod<&Mapping::advise>("advise"),
                           InstanceMethod<&Mapping::buffer>("buffer"),
                           InstanceMethod<&Mapping::grow>("grow"),
                           InstanceMethod<&Mapping::close>("close"),
                           InstanceMethod<&Mapping::count>("count"),
                           InstanceMethod<&Mapping::lock>("lock"),
                           InstanceMethod<&Mapping::unlock>("unlock"),
                       });
  }

  // new Mapping(pages, sharing is shared, noreserve, populate, huge pages, fd | -1, offset in
  // pages)
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
    spec.huge_pages = boolean_argument(info, 4, "hugePages must be a boolean");
    spec.fd = fd_argument(info, 5, -1, "fd must be a descriptor or -1");
    spec.offset =
        integer_argument(info, 6, 0, 1ULL << 40, "offset must be a whole number of pages") *
        page_size();
    if (spec.fd >= 0) require_safe_object(env, spec);
    growable_ = !spec.shared && spec.fd < 0;
    if (live_ranges >= kMostRanges) throw_failure(env, Failure{ENOMEM, "mmap"});
    range_ = std::make_shared<Range>(unwrap(env, map_region(spec)), spec.length);
    Napi::MemoryManagement::AdjustExternalMemory(env, kToldBytes);
  }

  ~Mapping() override { let_go(); }

 private:
  // Only a memfd that can never shrink, long enough from the start, can be touched without SIGBUS.
  // One of huge pages cannot, as those run out; nor can any under strict overcommit, which charges
  // page by page (mm/shmem.c, shmem_inode_acct_blocks): lib/api/mapping.ts refuses that.
  static void require_safe_object(Napi::Env env, const RegionSpec& spec) {
    const int seals = fcntl(spec.fd, F_GET_SEALS);
    struct statfs system {};
    struct stat object {};
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstatfs(spec.fd, &system) != 0 ||
        system.f_type != kTmpfsMagic || fstat(spec.fd, &object) != 0) {
      throw_type_error(env, "fd must be a memfd of base pages, sealed with F_SEAL_SHRINK");
    }
    if (static_cast<uint64_t>(object.st_size) < spec.offset + spec.length) {
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
    if (!is_known_advice(advice)) throw_range_error(env, "advice must be one that cowlab knows");
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
    if (shown_) throw Napi::Error::New(env, "the mapping has its ArrayBuffer already");
    auto shown = std::make_shared<Shown>();
    shown->range = range_;
    auto* share = new std::shared_ptr<Shown>(shown);
    napi_value created = nullptr;
    // Not Napi::ArrayBuffer::New, which frees at a refusal (a length beyond
    // buffer.constants.MAX_LENGTH) what Node then frees too. Whether Node calls release_buffer
    // after a refusal depends on its version: if not, `share` and the addresses are lost, and
    // nothing else.
    if (napi_create_external_arraybuffer(env, range_->base, range_->length, release_buffer, share,
                                         &created) != napi_ok) {
      throw Napi::Error::New(env);
    }
    shown->buffer = Napi::Weak(Napi::ArrayBuffer(env, created));
    shown_ = std::move(shown);
    return Napi::Value(env, created);
  }

  // grow(pages): mremap, to a new address, so that only what JavaScript has no view of can; and
  // only private anonymous memory has something behind its new pages.
  Napi::Value grow(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Range& range = open_range(info);
    if (!growable_ || shown_) {
      throw_type_error(env, "only private anonymous memory without an ArrayBuffer can grow");
    }
    const uint64_t pages = range.length / page_size();
    const uint64_t wanted = integer_argument(info, 0, pages + 1, kMaxRegionBytes / page_size(),
                                             "pages must be more than there are, up to 2^34");
    range.base = unwrap(env, grow_region(range.base, range.length, wanted * page_size()));
    range.length = wanted * page_size();
    return env.Undefined();
  }

  // Gives the memory back. If JavaScript may still see the addresses (also after
  // ArrayBuffer.transfer(), which moves them where nobody can detach them), they stay readable and
  // empty until its buffer is collected.
  Napi::Value close(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!range_) return env.Undefined();
    if (shown_) {
      const Status blanked = blank_region(range_->base, range_->length);
      if (!blanked.ok()) throw_failure(env, blanked.failure());
      Napi::ArrayBuffer buffer = shown_->buffer.Value();
      if (!buffer.IsEmpty() && !buffer.IsDetached()) {
        buffer.Detach();
        shown_->detached = true;
      }
      shown_.reset();
    }
    let_go();
    return env.Undefined();
  }

  // A slot of shared memory, at `info[0]` bytes.
  Slot* slot_argument(const Napi::CallbackInfo& info) {
    Range& range = open_range(info);
    const uint64_t offset = integer_argument(info, 0, 0, range.length - sizeof(Slot),
                                             "offset must lie inside the mapping");
    if (offset % sizeof(Slot) != 0) {
      throw_range_error(info.Env(), "offset must be a multiple of 64");
    }
    return reinterpret_cast<Slot*>(range.base + offset);
  }

  // count(offset, guard, times): adds 1, so many times, and returns the value after it.
  Napi::Value count(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Slot* const slot = slot_argument(info);
    const auto guard = static_cast<Guard>(integer_argument(info, 1, 0, 2, "guard must be 0 to 2"));
    const uint64_t times = integer_argument(info, 2, 0, 1ULL << 32, "times must be up to 2^32");
    LockOwner* const owner = lock_owner();
    const SharingReport report = add(slot, guard, times, owner, -1);
    if (report.error != 0) throw_failure(env, Failure{report.error, "futex"});
    return Napi::Number::New(env, static_cast<double>(slot->value.load()));
  }

  // lock(offset, milliseconds): whether the last owner died with it.
  Napi::Value lock(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Slot* const slot = slot_argument(info);
    const uint64_t wait_ms =
        integer_argument(info, 1, 0, 1ULL << 31, "milliseconds must be up to 2^31");
    const Locked locked = lock_owner()->acquire(&slot->lock, now_ns() + wait_ms * 1'000'000, -1);
    if (locked == Locked::kTimedOut) throw_failure(env, Failure{ETIMEDOUT, "futex"});
    if (locked == Locked::kIsOwner || locked == Locked::kTooMany) {
      throw_failure(env, Failure{EDEADLK, "futex"});
    }
    return Napi::Boolean::New(env, locked == Locked::kOwnerDied);
  }

  Napi::Value unlock(const Napi::CallbackInfo& info) {
    Slot* const slot = slot_argument(info);
    if (!lock_owner()->release(&slot->lock)) {
      throw_failure(info.Env(), Failure{EPERM, "futex"});
    }
    return info.Env().Undefined();
  }

  void let_go() {
    if (!range_) return;
    lock_owner()->forsake(range_->base, range_->length);
    range_.reset();
    Napi::MemoryManagement::AdjustExternalMemory(Env(), -kToldBytes);
  }

  bool growable_ = false;
  std::shared_ptr<Range> range_;
  std::shared_ptr<Shown> shown_;
};

}  // namespace

void export_mapping(Napi::Env env, Napi::Object exports) {
  exports.Set("Mapping", Mapping::define(env));
}

}  // namespace cowlab
