// The root of a tree that has nothing of Node's: `cowlab-bare PARENT`, which finds its socket at
// descriptor 3. Linked statically where that is possible, it has no file in common with any other
// program, so that what it shares it shares with its own descendants alone.
#include <cstdlib>

#include "../core/child.h"
#include "../core/process.h"

int main(int argc, char** argv) {
  const long parent = argc == 2 ? strtol(argv[1], nullptr, 10) : 0;
  if (parent < 1) return 2;
  cowlab::become_root(cowlab::kFirstKept, static_cast<pid_t>(parent));
}
