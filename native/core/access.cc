#include "access.h"

#include <poll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

namespace cowlab {
namespace {

// How many pages are touched between two looks at the socket.
constexpr uint64_t kPagesBetweenLooks = 8192;

// Sanitizers would touch memory of their own beside each page, and the faults of that would count.
[[gnu::no_sanitize_address]] uint64_t run(AccessKind kind, char* base, const PageCursor& cursor,
                                          uint64_t from, uint64_t to, uint64_t value) {
  const uint64_t size = page_size();
  uint64_t sum = 0;
  for (uint64_t position = from; position < to; position++) {
    volatile uint64_t* word =
        reinterpret_cast<volatile uint64_t*>(base + cursor.page_at(position) * size);
    if (kind == AccessKind::kWrite) {
      *word = value;
    } else {
      sum += *word;
    }
  }
  return sum;
}

// Not inlined, so that the warm-up runs the very instructions, on the very stack, of the measured
// run.
[[gnu::noinline]] AccessReport measure(AccessKind kind, char* base, const Selection& selection,
                                       uint64_t value, int hangup_fd) {
  const PageCursor cursor(selection);
  AccessReport report{};
  rusage before{};
  rusage after{};
  getrusage(RUSAGE_THREAD, &before);
  const uint64_t start = now_ns();
  for (uint64_t from = selection.from; from < selection.to;) {
    if (hangup_fd >= 0 && hung_up(hangup_fd)) {
      report.hung_up = true;
      break;
    }
    const uint64_t left = selection.to - from;
    const uint64_t to = from + (left < kPagesBetweenLooks ? left : kPagesBetweenLooks);
    report.sum += run(kind, base, cursor, from, to, value);
    from = to;
  }
  report.elapsed_ns = now_ns() - start;
  getrusage(RUSAGE_THREAD, &after);
  report.minor_faults = static_cast<uint64_t>(after.ru_minflt - before.ru_minflt);
  report.major_faults = static_cast<uint64_t>(after.ru_majflt - before.ru_majflt);
  return report;
}

}  // namespace

uint64_t page_size() {
  static const uint64_t size = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return size;
}

uint64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000ULL + static_cast<uint64_t>(time.tv_nsec);
}

bool hung_up(int fd) {
  pollfd look{fd, 0, 0};
  return poll(&look, 1, 0) > 0 && (look.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

AccessReport access_pages(AccessKind kind, char* base, const Selection& selection, uint64_t value,
                          int hangup_fd) {
  // After a fork, code, stack and statics fault once more; the dummy run takes these faults.
  Selection dummy = selection;
  dummy.first = 0;
  dummy.pages = 1;
  dummy.from = 0;
  dummy.to = 1;
  uint64_t word = 0;
  measure(kind, reinterpret_cast<char*>(&word), dummy, value, hangup_fd);
  return measure(kind, base, selection, value, hangup_fd);
}

}  // namespace cowlab
