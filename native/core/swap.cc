#include "swap.h"

#include <sys/swap.h>

namespace cowlab {

Status swap_on(const char* path) {
  if (swapon(path, 0) != 0) return last_failure("swapon");
  return Done{};
}

Status swap_off(const char* path) {
  if (swapoff(path) == 0 || errno == EINVAL || errno == ENOENT) return Done{};
  return last_failure("swapoff");
}

}  // namespace cowlab
