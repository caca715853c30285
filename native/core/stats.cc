#include "stats.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "fd.h"

namespace cowlab {
namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};

// 0 for what is no pid.
pid_t pid_of(const char* name) { return static_cast<pid_t>(strtol(name, nullptr, 10)); }

bool is_gone_or_hidden(int error) {
  return error == ENOENT || error == ESRCH || error == EACCES || error == EPERM;
}

Result<std::string> read_stat(int directory, const char* pid) {
  const std::string path = std::string(pid) + "/stat";
  const Fd fd(openat(directory, path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return last_failure("open");
  std::string text;
  char buffer[2048];
  ssize_t got = 0;
  while ((got = read(fd.get(), buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(got));
  }
  if (got < 0) return last_failure("read");
  return text;
}

}  // namespace

Result<std::vector<std::string>> read_stats(const char* proc_root, std::vector<pid_t> but) {
  std::sort(but.begin(), but.end());
  const std::unique_ptr<DIR, CloseDirectory> directory(opendir(proc_root));
  if (!directory) return last_failure("open");
  std::vector<std::string> texts;
  for (;;) {
    errno = 0;
    const dirent* const entry = readdir(directory.get());
    if (entry == nullptr) break;
    const pid_t pid = pid_of(entry->d_name);
    if (pid <= 0 || std::binary_search(but.begin(), but.end(), pid)) continue;
    Result<std::string> text = read_stat(dirfd(directory.get()), entry->d_name);
    if (text.ok()) {
      texts.push_back(std::move(text.value()));
    } else if (!is_gone_or_hidden(text.failure().error)) {
      return text.failure();
    }
  }
  if (errno != 0) return last_failure("getdents64");
  return texts;
}

}  // namespace cowlab
