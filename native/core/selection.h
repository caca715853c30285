// Which pages an access touches, in which order: the same arithmetic as lib/schema/selection.ts.
#pragma once

#include <cstdint>

namespace cowlab {

enum class Pattern : uint64_t { kSequential = 0, kRandom = 1, kStride = 2 };

// Positions [from, to) of a permutation of the pages [first, first + pages).
struct Selection {
  uint64_t first;
  uint64_t pages;
  uint64_t from;
  uint64_t to;
  uint64_t stride;
  Pattern pattern;
  uint64_t seed;

  uint64_t count() const { return to - from; }
};

// True when every selected page lies in [0, limit) and no arithmetic on it can overflow.
inline bool is_valid(const Selection& s, uint64_t limit) {
  return s.pages <= limit && s.first <= limit - s.pages && s.from <= s.to && s.to <= s.pages &&
         s.stride >= 1 && static_cast<uint64_t>(s.pattern) <= 2 && limit <= (1ULL << 40);
}

// Computes pages of one selection; what does not change is computed once.
class PageCursor {
 public:
  explicit PageCursor(const Selection& selection) : s_(selection) {
    while ((1ULL << (2 * half_)) < s_.pages) half_++;
    mask_ = static_cast<uint32_t>((1ULL << half_) - 1);
    short_column_ = s_.stride ? s_.pages / s_.stride : 0;
    longer_columns_ = s_.stride ? s_.pages % s_.stride : 0;
  }

  uint64_t page_at(uint64_t position) const {
    switch (s_.pattern) {
      case Pattern::kRandom:
        return s_.first + shuffled(position);
      case Pattern::kStride:
        return s_.first + strided(position);
      default:
        return s_.first + position;
    }
  }

 private:
  static uint32_t mix(uint32_t value, uint32_t key) {
    uint32_t h = (value ^ key) * 0x9e3779b1u;
    h = (h ^ (h >> 15)) * 0x85ebca77u;
    return h ^ (h >> 13);
  }

  // A four-round Feistel network, walked until the value falls below the number of pages.
  uint64_t shuffled(uint64_t position) const {
    uint64_t value = position;
    do {
      uint32_t left = static_cast<uint32_t>(value >> half_);
      uint32_t right = static_cast<uint32_t>(value) & mask_;
      for (uint32_t round = 0; round < 4; round++) {
        const uint32_t key = static_cast<uint32_t>(s_.seed) + round * 0x27d4eb2fu;
        const uint32_t next = (left ^ mix(right, key)) & mask_;
        left = right;
        right = next;
      }
      value = (static_cast<uint64_t>(left) << half_) | right;
    } while (value >= s_.pages);
    return value;
  }

  // Pages 0, s, 2s, ... then 1, s + 1, ...: the first `pages % stride` columns are one page longer.
  uint64_t strided(uint64_t position) const {
    const uint64_t in_longer = longer_columns_ * (short_column_ + 1);
    if (position < in_longer) {
      return position / (short_column_ + 1) + position % (short_column_ + 1) * s_.stride;
    }
    const uint64_t rest = position - in_longer;
    return longer_columns_ + rest / short_column_ + rest % short_column_ * s_.stride;
  }

  Selection s_;
  uint32_t half_ = 1;
  uint32_t mask_ = 0;
  uint64_t short_column_ = 0;
  uint64_t longer_columns_ = 0;
};

}  // namespace cowlab
