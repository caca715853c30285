/**
 * Runs a program that the kernel ends when its parent ends, however that happens: `cowlab-tether
 * PPID PROGRAM ARG...`. Node cannot ask for this itself, and a virtual machine that outlives its
 * harness would hold gigabytes for ever.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: cowlab-tether PPID PROGRAM [ARG...]\n");
    return 2;
  }
  // The setting survives execve(2), and says nothing of a parent that has ended already: so it is
  // looked at afterwards.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != (pid_t)strtol(argv[1], NULL, 10))
    return 1;
  execvp(argv[2], argv + 2);
  fprintf(stderr, "%s: %s\n", argv[2], strerror(errno));
  return 127;
}
