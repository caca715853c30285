#include "restrict.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <initializer_list>

namespace cowlab {

int stay_on_one_cpu() {
  // As many CPUs as any kernel is built for (CONFIG_NR_CPUS).
  constexpr int kCpus = 8192;
  constexpr int kBits = 8 * sizeof(unsigned long);
  unsigned long mask[kCpus / kBits]{};
  if (syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask) < 0) return errno;
  int last = kCpus - 1;
  while (last > 0 && (mask[last / kBits] >> (last % kBits) & 1) == 0) last--;
  for (unsigned long& word : mask) word = 0;
  mask[last / kBits] = 1UL << (last % kBits);
  return syscall(SYS_sched_setaffinity, 0, sizeof(mask), mask) < 0 ? errno : 0;
}

int prefer_process(int pid, bool preferred) {
  const sched_param parameter{preferred ? 1 : 0};
  const int policy = preferred ? SCHED_FIFO : SCHED_OTHER;
  return sched_setscheduler(pid, policy, &parameter) == 0 ? 0 : errno;
}

int drop_cap_sys_admin() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (syscall(SYS_capget, &header, data) != 0) return errno;
  for (auto* set : {&data[0].effective, &data[0].permitted, &data[0].inheritable}) {
    *set &= ~(1u << CAP_SYS_ADMIN);
  }
  return syscall(SYS_capset, &header, data) == 0 ? 0 : errno;
}

}  // namespace cowlab
