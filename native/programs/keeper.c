/**
 * Runs a program of others, and leaves nothing of it: `cowlab-keeper PPID PROGRAM ARG...`. When the
 * program has ended, or whoever started the keeper is gone, every process that descends from it is
 * killed, whatever it has done to get away (setsid, a double fork): the keeper is the subreaper, to
 * which orphans come. It ends as the program did.
 *
 * If the keeper itself is killed by SIGKILL, the kernel kills the program (PDEATHSIG), and not what
 * the program has started: nobody is left who could.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/** The parent of a process by /proc/PID/stat, which is there on every kernel; -1 if it has ended.
 */
static pid_t parent_of(const char *pid) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
  FILE *file = fopen(path, "re");
  if (file == NULL) return -1;
  char text[512];
  const size_t length = fread(text, 1, sizeof(text) - 1, file);
  fclose(file);
  text[length] = '\0';
  // The name before it is in parentheses, and may hold any character.
  const char *after = strrchr(text, ')');
  int parent = -1;
  if (after == NULL || sscanf(after + 1, " %*c %d", &parent) != 1) return -1;
  return parent;
}

static void kill_children(void) {
  DIR *proc = opendir("/proc");
  if (proc == NULL) return;
  const pid_t self = getpid();
  for (const struct dirent *entry = readdir(proc); entry != NULL; entry = readdir(proc)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    // Its pid cannot be another's: until we have waited for it, it is at least a zombie of ours.
    if (parent_of(entry->d_name) == self) kill((pid_t)strtol(entry->d_name, NULL, 10), SIGKILL);
  }
  closedir(proc);
}

/** The children of those who are killed come to us, and are killed in turn, until there are none.
 */
static void kill_descendants(void) {
  for (;;) {
    kill_children();
    if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD) return;
  }
}

static void run(char **argv, const sigset_t *unblocked) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigprocmask(SIG_SETMASK, unblocked, NULL);
  execvp(argv[0], argv);
  fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
  _exit(127);
}

/** Ends as the program did. */
static int end_as(int status) {
  if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
  const struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  const int signal_number = WTERMSIG(status);
  signal(signal_number, SIG_DFL);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal_number);
  raise(signal_number);
  sigprocmask(SIG_UNBLOCK, &one, NULL);
  return 128 + signal_number;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: cowlab-keeper PPID PROGRAM [ARG...]\n");
    return 2;
  }
  const pid_t starter = (pid_t)strtol(argv[1], NULL, 10);
  sigset_t ours;
  sigset_t before;
  sigemptyset(&ours);
  for (const int *one = (const int[]){SIGCHLD, SIGTERM, SIGINT, SIGHUP, 0}; *one != 0; one++)
    sigaddset(&ours, *one);
  sigprocmask(SIG_BLOCK, &ours, &before);
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  // Says nothing of a starter that has ended already, so that is looked at afterwards.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != starter) return 1;
  const pid_t program = fork();
  if (program < 0) {
    perror("cowlab-keeper: fork");
    return 1;
  }
  if (program == 0) run(argv + 2, &before);
  int status = SIGKILL;  // what it comes to when we end it
  for (;;) {
    int received = 0;
    if (sigwait(&ours, &received) != 0) continue;
    // SIGHUP is our own starter's way to say that it is enough.
    if (getppid() != starter || received == SIGHUP) break;
    if (received != SIGCHLD) {
      kill(program, received);
      continue;
    }
    pid_t ended = 0;
    int how = 0;
    bool over = false;
    while ((ended = waitpid(-1, &how, WNOHANG)) > 0) {
      if (ended != program) continue;
      status = how;
      over = true;
    }
    if (over) break;
  }
  kill_descendants();
  return end_as(status);
}
