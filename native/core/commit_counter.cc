#include "commit_counter.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace cowlab {

int CommitCounter::open(bool fold) {
  meminfo_ = Fd(::open("/proc/meminfo", O_RDONLY | O_CLOEXEC));
  if (!meminfo_.valid()) return errno;
  if (!fold) return 0;
  mode_ = Fd(::open("/proc/sys/vm/overcommit_memory", O_WRONLY | O_CLOEXEC));
  return mode_.valid() ? 0 : errno;
}

int CommitCounter::read_before(uint64_t* kb) {
  // Once without being used: what it costs the first time is then paid.
  if (const int error = read_kb(kb)) return error;
  if (mode_.valid() && pwrite(mode_.get(), "2", 1, 0) != 1) return errno;
  return read_kb(kb);
}

int CommitCounter::read_after(uint64_t* kb) { return read_kb(kb); }

int CommitCounter::read_kb(uint64_t* kb) {
  char text[4096];
  const ssize_t bytes = pread(meminfo_.get(), text, sizeof(text) - 1, 0);
  if (bytes <= 0) return bytes < 0 ? errno : EIO;
  text[bytes] = '\0';
  const char* field = strstr(text, "\nCommitted_AS:");
  if (field == nullptr) return ENODATA;
  field += strlen("\nCommitted_AS:");
  while (*field == ' ') field++;
  *kb = 0;
  for (; *field >= '0' && *field <= '9'; field++) {
    *kb = *kb * 10 + static_cast<uint64_t>(*field - '0');
  }
  return 0;
}

}  // namespace cowlab
