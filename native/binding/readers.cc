// pagemap and smaps into typed arrays, and the probes.
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "../core/access.h"
#include "../core/pagemap.h"
#include "../core/probes.h"
#include "../core/smaps.h"
#include "../core/stats.h"
#include "../core/vma.h"
#include "../core/write_mark.h"
#include "arguments.h"
#include "parts.h"

namespace cowlab {
namespace {

constexpr uint64_t kMaxPages = 1ULL << 36;

struct PagesArgument {
  uint64_t address;
  uint64_t pages;
  Fd pagemap;
};

// (pid, address, pages, ...)
PagesArgument pages_argument(const Napi::CallbackInfo& info) {
  const pid_t pid = pid_argument(info, 0);
  const uint64_t pages =
      integer_argument(info, 2, 0, kMaxPages, "pages must be a whole number up to 2^36");
  const uint64_t address = address_argument(info, 1, pages);
  return PagesArgument{address, pages, unwrap(info.Env(), open_pagemap(pid))};
}

// readPagemap(pid, address, pages, entries: BigUint64Array)
Napi::Value read_entries(const Napi::CallbackInfo& info) {
  const PagesArgument range = pages_argument(info);
  auto entries = typed_array_argument<Napi::BigUint64Array>(
      info, 3, napi_biguint64_array, range.pages,
      "entries must be a BigUint64Array with an element a page");
  unwrap(info.Env(), read_pagemap(range.pagemap.get(), range.address, range.pages, entries.Data()));
  return info.Env().Undefined();
}

ScanOptions options_argument(const Napi::CallbackInfo& info) {
  return ScanOptions{boolean_argument(info, 3, "checkHuge must be a boolean"),
                     boolean_argument(info, 4, "checkZero must be a boolean")};
}

// readPages(pid, address, pages, checkHuge, checkZero, states: Uint8Array, frames: Float64Array or
// null)
Napi::Value read_states_and_frames(const Napi::CallbackInfo& info) {
  const PagesArgument range = pages_argument(info);
  const ScanOptions options = options_argument(info);
  auto states = typed_array_argument<Napi::Uint8Array>(
      info, 5, napi_uint8_array, range.pages, "states must be a Uint8Array with an element a page");
  PageFigures into{states.Data(), nullptr, nullptr};
  if (!info[6].IsNull()) {
    into.frames = typed_array_argument<Napi::Float64Array>(
                      info, 6, napi_float64_array, range.pages,
                      "frames must be null or a Float64Array with an element a page")
                      .Data();
  }
  unwrap(info.Env(), read_pages(range.pagemap.get(), range.address, range.pages, options, into));
  return info.Env().Undefined();
}

// countPages(pid, address, pages, checkHuge, checkZero, counts: Float64Array(6))
Napi::Value count_states(const Napi::CallbackInfo& info) {
  const PagesArgument range = pages_argument(info);
  const ScanOptions options = options_argument(info);
  auto into = typed_array_argument<Napi::Float64Array>(info, 5, napi_float64_array, kPageStates,
                                                       "counts must be a Float64Array(6)");
  uint64_t counts[kPageStates]{};
  unwrap(info.Env(), read_pages(range.pagemap.get(), range.address, range.pages, options,
                                PageFigures{nullptr, counts, nullptr}));
  for (size_t state = 0; state < kPageStates; state++)
    into[state] = static_cast<double>(counts[state]);
  return info.Env().Undefined();
}

template <typename Array, typename Value>
Array copy_of(Napi::Env env, const std::vector<Value>& values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

Napi::Array strings_of(Napi::Env env, const std::vector<std::string>& strings) {
  Napi::Array array = Napi::Array::New(env, strings.size());
  uint32_t index = 0;
  for (const std::string& string : strings) array.Set(index++, Napi::String::New(env, string));
  return array;
}

Napi::Object table_of(Napi::Env env, const SmapsTable& table) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("starts", copy_of<Napi::BigUint64Array>(env, table.starts));
  result.Set("ends", copy_of<Napi::BigUint64Array>(env, table.ends));
  result.Set("perms", copy_of<Napi::Uint8Array>(env, table.perms));
  auto flags = Napi::BigUint64Array::New(env, table.bodies.size());
  for (size_t row = 0; row < table.bodies.size(); row++)
    flags[row] = table.flags[table.bodies[row]];
  result.Set("vmFlags", flags);
  std::vector<std::string> flag_names;
  for (const auto [first, second] : table.flag_names) flag_names.push_back({first, second});
  result.Set("vmFlagNames", strings_of(env, flag_names));
  result.Set("fieldNames", strings_of(env, table.field_names));
  result.Set("figuresKb", copy_of<Napi::Float64Array>(env, table.figures_kb));
  result.Set("text", Napi::Buffer<char>::Copy(env, table.text.data(), table.text.size()));
  result.Set("textStarts", copy_of<Napi::Float64Array>(env, table.text_starts));
  result.Set("bodies", copy_of<Napi::Uint32Array>(env, table.bodies));
  result.Set("others", Napi::Buffer<char>::Copy(env, table.others.data(), table.others.size()));
  result.Set("otherStarts", copy_of<Napi::Float64Array>(env, table.other_starts));
  return result;
}

// The table, or which line has another form.
Napi::Value outcome_of(Napi::Env env, const SmapsParser& parser) {
  const SmapsFormatError& error = parser.error();
  if (error.line_number == 0) return table_of(env, parser.table());
  Napi::Object result = Napi::Object::New(env);
  result.Set("lineNumber", static_cast<double>(error.line_number));
  result.Set("line", Napi::Buffer<char>::Copy(env, error.line.data(), error.line.size()));
  result.Set("expected", error.expected);
  return result;
}

// readSmaps(path, address, pages): of the VMAs in a range; of all with null for the address.
Napi::Value read_smaps_table(const Napi::CallbackInfo& info) {
  const std::string path = string_argument(info, 0, "path must be a string");
  std::optional<SmapsRange> range;
  if (!info[1].IsNull()) {
    const uint64_t pages =
        integer_argument(info, 2, 1, kMaxPages, "pages must be a whole number from 1 to 2^36");
    const uint64_t address = address_argument(info, 1, pages);
    range = SmapsRange{address, address + pages * page_size()};
  }
  SmapsParser parser(range);
  unwrap(info.Env(), read_smaps(path.c_str(), &parser));
  return outcome_of(info.Env(), parser);
}

// parseSmaps(text: Uint8Array)
Napi::Value parse_smaps_table(const Napi::CallbackInfo& info) {
  const auto text = typed_array_argument<Napi::Uint8Array>(info, 0, napi_uint8_array, 0,
                                                           "text must be a Uint8Array");
  const std::string_view all(reinterpret_cast<const char*>(text.Data()), text.ElementLength());
  SmapsParser parser(std::nullopt);
  parser.take_end(all.substr(parser.take(all)));
  return outcome_of(info.Env(), parser);
}

// readStats(procRoot, but: Int32Array): the line of each process but these.
Napi::Value read_stat_of_all(const Napi::CallbackInfo& info) {
  const std::string root = string_argument(info, 0, "procRoot must be a string");
  const auto but = typed_array_argument<Napi::Int32Array>(info, 1, napi_int32_array, 0,
                                                          "but must be an Int32Array");
  const std::vector<pid_t> pids(but.Data(), but.Data() + but.ElementLength());
  return strings_of(info.Env(), unwrap(info.Env(), read_stats(root.c_str(), pids)));
}

// queryVma(pid, address, into: BigUint64Array(7)): the name of the VMA, and the rest in `into`.
Napi::Value query_vma_for_javascript(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const pid_t pid = pid_argument(info, 0);
  if (!info[1].IsBigInt()) throw_type_error(env, "address must be a bigint");
  bool lossless = false;
  const uint64_t address = info[1].As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) throw_range_error(env, "address must be of 64 bits");
  auto into = typed_array_argument<Napi::BigUint64Array>(info, 2, napi_biguint64_array, 7,
                                                         "into must be a BigUint64Array(7)");
  const Vma vma = unwrap(env, query_vma(pid, address));
  into[0] = vma.start;
  into[1] = vma.end;
  into[2] = vma.flags;
  into[3] = vma.offset;
  into[4] = vma.inode;
  into[5] = vma.device_major;
  into[6] = vma.device_minor;
  return Napi::String::New(env, vma.name);
}

// probe(): by name, 0 or the errno met.
Napi::Value probe_all(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("pagemapScan", probe_pagemap_scan());
  result.Set("procmapQuery", probe_procmap_query());
  result.Set("softDirty", probe_soft_dirty());
  result.Set("userfaultfdWpAsync", probe_userfaultfd_wp_async());
  result.Set("pageFrameNumbers", probe_page_frame_numbers());
  result.Set("capSysAdmin", has_cap_sys_admin());
  return result;
}

// systemMemory(): totals in pages, from sysinfo(2).
Napi::Value read_system_memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const SystemMemory memory = unwrap(env, system_memory());
  Napi::Object result = Napi::Object::New(env);
  result.Set("totalPages", static_cast<double>(memory.total_pages));
  result.Set("swapPages", static_cast<double>(memory.swap_pages));
  return result;
}

// forbidsZeroPage(): whether a read of untouched private memory allocates a page.
Napi::Value find_zero_page(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), unwrap(info.Env(), forbids_zero_page()));
}

}  // namespace

void export_readers(Napi::Env env, Napi::Object exports) {
  exports.Set("pageSizeBytes", Napi::Number::New(env, static_cast<double>(page_size())));
  exports.Set("readPagemap", Napi::Function::New(env, read_entries));
  exports.Set("readPages", Napi::Function::New(env, read_states_and_frames));
  exports.Set("countPages", Napi::Function::New(env, count_states));
  exports.Set("readSmaps", Napi::Function::New(env, read_smaps_table));
  exports.Set("readStats", Napi::Function::New(env, read_stat_of_all));
  exports.Set("parseSmaps", Napi::Function::New(env, parse_smaps_table));
  exports.Set("forbidsZeroPage", Napi::Function::New(env, find_zero_page));
  exports.Set("probe", Napi::Function::New(env, probe_all));
  exports.Set("queryVma", Napi::Function::New(env, query_vma_for_javascript));
  exports.Set("systemMemory", Napi::Function::New(env, read_system_memory));
}

}  // namespace cowlab
