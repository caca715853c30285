// Reading /proc/PID/smaps into columns: a row for each VMA, and a column for each figure in kB.
// fs/proc/task_mmu.c: show_smap, show_map_vma, show_smap_vma_flags; proc_pid_smaps(5).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "result.h"

namespace cowlab {

// The order is that of the bits of SmapsTable.perms in lib/proc/smaps-table.ts.
enum SmapsPerms : uint8_t {
  kReadable = 1 << 0,
  kWritable = 1 << 1,
  kExecutable = 1 << 2,
  kMapShared = 1 << 3,
  kOfFile = 1 << 4,  // its inode is not 0
};

struct SmapsFlag {
  char first;
  char second;
  bool operator==(const SmapsFlag&) const = default;
};

// Mappings that nobody has touched, guards and the like, say the same below the first line of their
// records, so a body may be that of many: of the some 700 mappings of a process of Chromium three
// in five have the body of another, of thousands of stacks and arenas nearly all.
struct SmapsTable {
  // One a VMA.
  std::vector<uint64_t> starts;
  std::vector<uint64_t> ends;
  std::vector<uint8_t> perms;
  std::vector<uint32_t> bodies;
  // The first lines, with where each begins.
  std::string text;
  std::vector<double> text_starts;

  // One a body. Bit i of its flags is flag_names[i].
  std::vector<uint64_t> flags;
  std::vector<SmapsFlag> flag_names;
  // Body by body a figure for each of field_names, which are in the order in which the kernel
  // showed them first; NaN for a body without the field.
  std::vector<double> figures_kb;
  std::vector<std::string> field_names;
  // The lines that have no unit, as they stood, with where those of each body begin.
  std::string others;
  std::vector<double> other_starts;
};

// VMAs that have an address in [start, end).
struct SmapsRange {
  uint64_t start;
  uint64_t end;
};

struct SmapsFormatError {
  size_t line_number = 0;  // from 1; 0 is no error
  std::string line;
  const char* expected = "";
};

// Takes the text piece by piece. Its grammar is that of parseSmaps (lib/proc/smaps.ts). Beyond that
// there are at most 64 names of fields and of flags, which are the bits of vm_flags, and 256 lines
// a VMA: no text makes it take more memory than some twenty times its own length.
class SmapsParser {
 public:
  // Of all VMAs, or of those in a range.
  explicit SmapsParser(std::optional<SmapsRange> range) : range_(range) {}

  // Takes the whole lines of a text. Returns how many bytes these are; the rest belongs before the
  // next piece.
  size_t take(std::string_view text);
  // Ends the table, with the last line if it has no newline.
  void take_end(std::string_view line);

  bool wants_all() const { return !range_; }
  // It knows all that is to be known: past the range, or after an error.
  bool done() const { return past_range_ || error_.line_number != 0; }
  const SmapsTable& table() const { return table_; }
  const SmapsFormatError& error() const { return error_; }

 private:
  // A line of a record, as it was last.
  struct Field {
    std::string name;
    std::string line;  // with its newline
    bool is_figure = false;
    // It is a figure, and stands where take_figure looks for it.
    bool is_aligned = false;
    double figure_kb = 0;
    // Once it has been a figure.
    std::optional<size_t> column;
    // Of VmFlags.
    uint64_t flags = 0;
  };

  struct KnownBody {
    std::string lines;
    size_t line_count = 0;
    uint32_t index = 0;
  };

  size_t take_body(std::string_view text);
  void keep_body(std::string_view lines);
  KnownBody& body_like(std::string_view text);
  size_t take_known(std::string_view text);
  void take_line(std::string_view line);
  void take_header(std::string_view line);
  void take_field(std::string_view line);
  static bool take_figure(const char* line, Field* field);
  void end_record();
  Field* field_of(std::string_view line);
  bool parse_field(std::string_view line, Field* field);
  bool find_column(Field* field);
  void widen(size_t width);
  bool parse_flags(std::string_view value, uint64_t* flags);
  // Returns false.
  bool fail(std::string_view line, const char* expected);

  std::optional<SmapsRange> range_;
  SmapsTable table_;
  SmapsFormatError error_;
  size_t line_number_ = 0;
  bool past_range_ = false;
  bool in_record_ = false;
  // The record at hand is in the range.
  bool wanted_ = false;
  // The fields of the record at hand so far, and then those of the one before. They come in the
  // same order, and most lines are the same again, which then need not be parsed.
  std::vector<Field> fields_;
  size_t next_field_ = 0;
  std::array<KnownBody, 256> known_bodies_;
};

// Reads a file of the form of smaps, or of smaps_rollup, until the parser has done.
Status read_smaps(const char* path, SmapsParser* parser);

}  // namespace cowlab
