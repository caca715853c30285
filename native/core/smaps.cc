#include "smaps.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>

#include "fd.h"

namespace cowlab {
namespace {

// seq_file shows records until as much as was asked for is there, in a buffer of one page; it drops
// the record that does not fit any more, and walks that VMA again at the next read [fs/seq_file.c:
// seq_read_iter]. So less is asked for than a page, by more than a record of some 700 bytes: no VMA
// is walked twice. 3 KiB was the quickest of 512 bytes .. 1 MiB for small VMAs.
constexpr size_t kReadBytes = 3072;
// Parsed at once: kernel and parser, in turns, throw each other out of the processor's caches.
constexpr size_t kParsedBytes = 65536;

constexpr size_t kMostNames = 64;
constexpr size_t kMostFields = 256;
constexpr uint64_t kMaxSafeInteger = (1ULL << 53) - 1;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::string_view kUnit = " kB";
// 'Pss_Dirty:           103 kB' and its newline: figures of up to eight digits stand there in every
// kernel [fs/proc/task_mmu.c: SEQ_PUT_DEC; "%8lu kB" before].
constexpr size_t kFigureAt = 16;
constexpr size_t kUnitAt = 24;
constexpr size_t kFigureLine = 28;

constexpr uint8_t kNoDigit = 0xff;

// What each byte is worth as a hexadecimal digit, of which the kernel writes only small letters.
constexpr std::array<uint8_t, 256> kHexDigits = [] {
  std::array<uint8_t, 256> digits{};
  digits.fill(kNoDigit);
  for (uint8_t value = 0; value < 16; value++) {
    digits[static_cast<uint8_t>("0123456789abcdef"[value])] = value;
  }
  return digits;
}();

bool is_digit(char letter) { return letter >= '0' && letter <= '9'; }
bool is_field(std::string_view line) { return !line.empty() && line[0] >= 'A' && line[0] <= 'Z'; }
bool is_flag(char letter) {
  return (letter >= 'a' && letter <= 'z') || is_digit(letter) || letter == '?';
}

// The words of the first line of a record, taken one after the other from the left.
class Header {
 public:
  explicit Header(std::string_view line) : line_(line) {}

  // So many hexadecimal digits, and what ends them.
  bool take_hex(uint64_t* value, size_t most, char end) {
    const size_t first = at_;
    *value = 0;
    for (; at_ < line_.size(); at_++) {
      const uint8_t digit = kHexDigits[static_cast<uint8_t>(line_[at_])];
      if (digit == kNoDigit) break;
      *value = *value << 4 | digit;
    }
    return at_ > first && at_ - first <= most && take(end);
  }

  bool take_inode(bool* is_none) {
    const size_t first = at_;
    *is_none = true;
    for (; at_ < line_.size() && is_digit(line_[at_]); at_++) *is_none &= line_[at_] == '0';
    return at_ > first && at_ - first <= 20;
  }

  // One letter, or '-' for what is not so.
  bool take_letter(char yes, char no, uint8_t bit, uint8_t* bits) {
    if (take(yes)) {
      *bits |= bit;
      return true;
    }
    return take(no);
  }

  bool take(char letter) {
    if (at_ == line_.size() || line_[at_] != letter) return false;
    at_++;
    return true;
  }

  bool at_end() const { return at_ == line_.size(); }

 private:
  std::string_view line_;
  size_t at_ = 0;
};

struct Mapping {
  uint64_t start;
  uint64_t end;
  uint8_t perms;
};

// 'start-end perms offset device inode  path' [show_map_vma].
bool parse_header(std::string_view line, Mapping* mapping) {
  constexpr size_t kAny = std::numeric_limits<size_t>::max();
  Header header(line);
  uint64_t start = 0, end = 0, ignored = 0;
  uint8_t perms = 0;
  bool is_anonymous = true;
  const bool well_formed = header.take_hex(&start, 16, '-') && header.take_hex(&end, 16, ' ') &&
                           header.take_letter('r', '-', kReadable, &perms) &&
                           header.take_letter('w', '-', kWritable, &perms) &&
                           header.take_letter('x', '-', kExecutable, &perms) &&
                           header.take_letter('s', 'p', kMapShared, &perms) && header.take(' ') &&
                           header.take_hex(&ignored, 16, ' ') &&
                           header.take_hex(&ignored, kAny, ':') &&
                           header.take_hex(&ignored, kAny, ' ') && header.take_inode(&is_anonymous);
  if (!well_formed || (!header.at_end() && !header.take(' '))) return false;
  if (!is_anonymous) perms |= kOfFile;
  *mapping = Mapping{start, end, perms};
  return true;
}

// Spaces, and then digits to the end.
bool parse_figure(std::string_view text, double* figure) {
  size_t at = 0;
  while (at < text.size() && text[at] == ' ') at++;
  if (at == text.size()) return false;
  uint64_t value = 0;
  for (; at < text.size(); at++) {
    if (!is_digit(text[at])) return false;
    value = value * 10 + static_cast<uint64_t>(text[at] - '0');
    if (value > kMaxSafeInteger) return false;
  }
  *figure = static_cast<double>(value);
  return true;
}

// Spaces, and then digits to the end, of eight letters, of which the lowest byte is the first: all
// of them at once. Spaces become zeros, pairs of digits numbers below 100, and so on.
bool parse_eight(uint64_t letters, double* figure) {
  static_assert(std::endian::native == std::endian::little);
  constexpr uint64_t kEach = 0x0101010101010101;
  const uint64_t digits = letters | kEach * 0x10;
  // 1 in each byte that was a space, or that the change above made a digit of.
  const uint64_t changed = (digits ^ letters) >> 4;
  const bool all_digits = (digits & kEach * 0xf0) == kEach * 0x30 &&
                          ((digits + kEach * 0x06) & kEach * 0xf0) == kEach * 0x30;
  const bool from_spaces = (digits & changed * 0x0f) == 0;
  const uint64_t spaces = changed * 0xff;
  const bool in_front = (spaces & (spaces + 1)) == 0 && spaces >> 56 == 0;
  if (!all_digits || !from_spaces || !in_front) return false;
  uint64_t value = digits & kEach * 0x0f;
  value = (value * 10 + (value >> 8)) & 0x00ff00ff00ff00ff;
  value = (value * 100 + (value >> 16)) & 0x0000ffff0000ffff;
  *figure = static_cast<double>((value * 10000 + (value >> 32)) & 0xffffffff);
  return true;
}

// The place of a name in a list, where it is put if it is not there; kMostNames if that is full.
template <typename Name>
size_t place_of(const Name& name, std::vector<Name>* names) {
  const auto found = std::find(names->begin(), names->end(), name);
  const size_t place = static_cast<size_t>(found - names->begin());
  if (found == names->end() && place < kMostNames) names->push_back(name);
  return place;
}

}  // namespace

size_t SmapsParser::take(std::string_view text) {
  size_t at = 0;
  // Where the body of the record at hand begins, if it does so in this text.
  constexpr size_t kNowhere = std::string_view::npos;
  size_t body = kNowhere;
  while (!done()) {
    at += take_known(text.substr(at));
    const std::string_view rest = text.substr(at);
    const size_t newline = rest.find('\n');
    if (newline == std::string_view::npos) break;
    take_line(rest.substr(0, newline));
    if (done()) break;
    const size_t end_of_record = at;
    at += newline + 1;
    if (is_field(rest)) continue;
    if (body != kNowhere) keep_body(text.substr(body, end_of_record - body));
    body = at;
    at += take_body(text.substr(at));
    if (at > body) body = kNowhere;
  }
  return at;
}

// Takes the lines of the record at hand if they are those of an earlier one, all of them.
size_t SmapsParser::take_body(std::string_view text) {
  const KnownBody& body = body_like(text);
  const size_t length = body.lines.size();
  if (range_ || length == 0 || text.size() == length || !text.starts_with(body.lines) ||
      is_field(text.substr(length))) {
    return 0;
  }
  table_.bodies.push_back(body.index);
  line_number_ += body.line_count;
  // Nothing of this record is left to be put into the table, and the next is like the one before.
  wanted_ = false;
  next_field_ = fields_.size();
  return length;
}

// Keeps the lines of the record that was put into the table last.
void SmapsParser::keep_body(std::string_view lines) {
  if (range_) return;
  KnownBody& body = body_like(lines);
  body.lines = lines;
  body.line_count = fields_.size();
  body.index = table_.bodies.back();
}

// The one that is kept of those that begin like this: with the same size, Rss and Pss.
SmapsParser::KnownBody& SmapsParser::body_like(std::string_view text) {
  constexpr size_t kBeginning = 5 * kFigureLine;
  const size_t hash = std::hash<std::string_view>{}(text.substr(0, kBeginning));
  return known_bodies_[hash % known_bodies_.size()];
}

// The lines that are as in the record before, but for their figures.
size_t SmapsParser::take_known(std::string_view text) {
  const char* at = text.data();
  const char* const end = at + text.size();
  size_t next = next_field_;
  for (; next < fields_.size(); next++) {
    Field& field = fields_[next];
    const size_t length = field.line.size();
    if (static_cast<size_t>(end - at) < length) break;
    if (field.is_aligned) {
      if (!take_figure(at, &field)) break;
    } else if (memcmp(at, field.line.data(), length) != 0) {
      break;
    }
    at += length;
  }
  line_number_ += next - next_field_;
  next_field_ = next;
  return static_cast<size_t>(at - text.data());
}

// False, and nothing has changed, unless the kFigureLine bytes are such a line of that name.
bool SmapsParser::take_figure(const char* line, Field* field) {
  char* const last = field->line.data();
  if (memcmp(line, last, kFigureAt) != 0 ||
      memcmp(line + kUnitAt, last + kUnitAt, kFigureLine - kUnitAt) != 0) {
    return false;
  }
  uint64_t letters = 0;
  uint64_t last_letters = 0;
  memcpy(&letters, line + kFigureAt, sizeof(letters));
  memcpy(&last_letters, last + kFigureAt, sizeof(letters));
  if (letters == last_letters) return true;
  if (!parse_eight(letters, &field->figure_kb)) return false;
  memcpy(last + kFigureAt, &letters, sizeof(letters));
  return true;
}

void SmapsParser::take_end(std::string_view line) {
  if (!done() && !line.empty()) take_line(line);
  end_record();
}

void SmapsParser::take_line(std::string_view line) {
  line_number_++;
  if (is_field(line)) {
    take_field(line);
  } else {
    take_header(line);
  }
}

void SmapsParser::take_header(std::string_view line) {
  Mapping mapping;
  if (!parse_header(line, &mapping)) {
    fail(line, "start-end perms offset device inode [path]");
    return;
  }
  end_record();
  in_record_ = true;
  // They come in the order of their addresses.
  past_range_ = range_ && mapping.start >= range_->end;
  wanted_ = !range_ || (!past_range_ && mapping.end > range_->start);
  if (!wanted_) return;
  table_.starts.push_back(mapping.start);
  table_.ends.push_back(mapping.end);
  table_.perms.push_back(mapping.perms);
  table_.text_starts.push_back(static_cast<double>(table_.text.size()));
  table_.text.append(line).push_back('\n');
}

// Puts the fields of the record at hand into the table, NaN for those it has not got.
void SmapsParser::end_record() {
  fields_.resize(next_field_);
  next_field_ = 0;
  if (!wanted_) return;
  table_.bodies.push_back(static_cast<uint32_t>(table_.flags.size()));
  table_.other_starts.push_back(static_cast<double>(table_.others.size()));
  uint64_t flags = 0;
  const size_t at = table_.figures_kb.size();
  table_.figures_kb.resize(at + table_.field_names.size(), kNone);
  for (const Field& field : fields_) {
    if (field.is_figure) {
      table_.figures_kb[at + *field.column] = field.figure_kb;
    } else {
      flags |= field.flags;
      table_.others.append(field.line);
    }
  }
  table_.flags.push_back(flags);
}

// 'Key:   123 kB', 'THPeligible:  0' or 'VmFlags: rd wr ...'.
void SmapsParser::take_field(std::string_view line) {
  Field* field = field_of(line);
  if (field && parse_field(line, field)) next_field_++;
}

// Null, after an error, for a line that is none, or the second of its name.
SmapsParser::Field* SmapsParser::field_of(std::string_view line) {
  const std::string_view name = line.substr(0, line.find(':'));
  if (!in_record_) {
    fail(line, "the address range of a VMA before its first field");
    return nullptr;
  }
  if (name.size() == line.size()) {
    fail(line, "a field, 'Name: value'");
    return nullptr;
  }
  if (next_field_ < fields_.size() && fields_[next_field_].name == name) {
    return &fields_[next_field_];
  }
  // From here on the record is not as the one before was.
  fields_.resize(next_field_);
  const bool is_second = std::any_of(fields_.begin(), fields_.end(),
                                     [&](const Field& field) { return field.name == name; });
  if (is_second || fields_.size() == kMostFields) {
    fail(line, "a field that the record has not got yet");
    return nullptr;
  }
  fields_.emplace_back().name = name;
  return &fields_.back();
}

bool SmapsParser::parse_field(std::string_view line, Field* field) {
  std::string_view value = line.substr(field->name.size() + 1);
  field->is_figure = value.ends_with(kUnit);
  if (field->is_figure) {
    value.remove_suffix(kUnit.size());
    if (!parse_figure(value, &field->figure_kb)) return fail(line, "a number of kB");
    if (!field->column && !find_column(field)) return fail(line, "at most 64 fields");
  } else if (field->name == "VmFlags" && !parse_flags(value, &field->flags)) {
    return fail(line, "flags of two letters");
  }
  field->line.assign(line).push_back('\n');
  field->is_aligned = field->is_figure && field->line.size() == kFigureLine &&
                      line.find_first_not_of(' ', field->name.size() + 1) >= kFigureAt;
  return true;
}

bool SmapsParser::find_column(Field* field) {
  const size_t width = table_.field_names.size();
  const size_t place = place_of(field->name, &table_.field_names);
  if (place == kMostNames) return false;
  if (place == width) widen(width);
  field->column = place;
  return true;
}

// Gives the bodies that are there a figure more, which none of them has.
void SmapsParser::widen(size_t width) {
  const size_t bodies = table_.flags.size();
  std::vector<double> wider(bodies * (width + 1), kNone);
  for (size_t body = 0; body < bodies; body++) {
    std::copy_n(table_.figures_kb.data() + body * width, width, wider.data() + body * (width + 1));
  }
  table_.figures_kb = std::move(wider);
}

// ' rd wr mr', and perhaps a space at the end [show_smap_vma_flags].
bool SmapsParser::parse_flags(std::string_view value, uint64_t* flags) {
  if (value.ends_with(' ')) value.remove_suffix(1);
  *flags = 0;
  for (; !value.empty(); value.remove_prefix(3)) {
    if (value.size() < 3 || value[0] != ' ' || !is_flag(value[1]) || !is_flag(value[2])) {
      return false;
    }
    const size_t place = place_of(SmapsFlag{value[1], value[2]}, &table_.flag_names);
    if (place == kMostNames) return false;
    *flags |= 1ULL << place;
  }
  return true;
}

bool SmapsParser::fail(std::string_view line, const char* expected) {
  error_ = SmapsFormatError{line_number_, std::string(line), expected};
  return false;
}

Status read_smaps(const char* path, SmapsParser* parser) {
  const Fd fd(open(path, O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return last_failure("open");
  // Beyond a range no VMA is to be walked.
  const size_t enough = parser->wants_all() ? kParsedBytes : 1;
  std::vector<char> buffer(kParsedBytes + kReadBytes);
  size_t held = 0;
  while (!parser->done()) {
    if (buffer.size() - held < kReadBytes) buffer.resize(2 * buffer.size());
    const ssize_t got = read(fd.get(), buffer.data() + held, kReadBytes);
    if (got < 0) return last_failure("read");
    held += static_cast<size_t>(got);
    if (got > 0 && held < enough) continue;
    const std::string_view text(buffer.data(), held);
    const size_t taken = parser->take(text);
    if (got == 0) {
      parser->take_end(text.substr(taken));
      break;
    }
    held -= taken;
    memmove(buffer.data(), buffer.data() + taken, held);
  }
  return Done{};
}

}  // namespace cowlab
