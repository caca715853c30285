// What a process gives up, for itself and for those it forks. Async-signal-safe.
#pragma once

namespace cowlab {

// Stays on the last CPU that it may use: the first is where most other work is. 0 or an errno.
int stay_on_one_cpu();

// Whether a process runs before all ordinary ones (SCHED_FIFO), for which one must be root, or as
// one of them. 0 or an errno.
int prefer_process(int pid, bool preferred);

// Gives CAP_SYS_ADMIN up, so that strict overcommit holds the admin reserve back from it as from
// any ordinary process. 0 or an errno.
int drop_cap_sys_admin();

}  // namespace cowlab
