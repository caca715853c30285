#include "child.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

namespace cowlab {

void reset_signals() {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; signal++) sigaction(signal, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

void redirect_standard_streams() {
  const int null_device = open("/dev/null", O_RDWR | O_CLOEXEC);
#ifdef COWLAB_SANITIZE
  constexpr int kStreams = 2;  // sanitizers report to the third
#else
  constexpr int kStreams = 3;
#endif
  for (int fd = 0; fd < kStreams; fd++) {
    if (null_device < 0) {
      close(fd);
    } else {
      dup2(null_device, fd);
    }
  }
  if (null_device > 2) close(null_device);
}

void keep_only(const int* descriptors, int count) {
  // One may stand where another is to go, so all move out of the way first.
  int aside[4];
  for (int i = 0; i < count; i++) aside[i] = fcntl(descriptors[i], F_DUPFD, kFirstKept + count);
  for (int i = 0; i < count; i++) dup2(aside[i], kFirstKept + i);
  const int above = kFirstKept + count;
  if (syscall(SYS_close_range, above, ~0U, 0) == 0) return;
  const long limit = sysconf(_SC_OPEN_MAX);  // before Linux 5.9
  for (int fd = above; fd < limit; fd++) close(fd);
}

}  // namespace cowlab
