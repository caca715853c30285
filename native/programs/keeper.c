/**
 * Runs a program of others, and leaves nothing of it: `cowlab-keeper PPID PROGRAM ARG...`. When the
 * program has ended, or whoever started the keeper is gone, every process that descends from it is
 * ended, whatever it has done to get away (setsid, a double fork): the keeper is the subreaper, to
 * which orphans come. It ends as the program did.
 *
 * They are asked by SIGTERM first, and killed when they take too long: a killed process can put
 * nothing away. Python's resource tracker, which ignores SIGTERM, unlinks the semaphores of its
 * program when all others who knew them are gone.
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
#include <time.h>
#include <unistd.h>

/** How long what descends from the program may take to end once it has been asked to. */
enum { GRACE_MS = 2000 };
/** include/linux/threads.h: PID_MAX_LIMIT. */
enum { MOST_PIDS = 4 * 1024 * 1024 };
/** No status of wait(2). */
enum { STILL_RUNS = -1 };

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

/** Sends a signal to our children; SIGTERM only once to each, whose handler may be at work. */
static void signal_children(int signal_number) {
  static bool told[MOST_PIDS];
  DIR *proc = opendir("/proc");
  if (proc == NULL) return;
  const pid_t self = getpid();
  for (const struct dirent *entry = readdir(proc); entry != NULL; entry = readdir(proc)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    // Its pid cannot be another's: until we have waited for it, it is at least a zombie of ours.
    if (parent_of(entry->d_name) != self) continue;
    const long pid = strtol(entry->d_name, NULL, 10);
    if (signal_number == SIGTERM && told[pid]) continue;
    told[pid] = true;
    kill((pid_t)pid, signal_number);
  }
  closedir(proc);
}

static long long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/** Waits for those that have ended. False if there are no children any more. */
static bool reap(pid_t program, int *status) {
  for (;;) {
    int how = 0;
    const pid_t ended = waitpid(-1, &how, WNOHANG);
    if (ended == 0) return true;
    if (ended < 0) return errno != ECHILD;
    if (ended == program) *status = how;
  }
}

/** The children of those who end come to us, and are ended in turn, until there are none. */
static void end_descendants(pid_t program, int *status) {
  sigset_t of_children;
  sigemptyset(&of_children);
  sigaddset(&of_children, SIGCHLD);
  const long long deadline = now_ms() + GRACE_MS;
  while (reap(program, status)) {
    const long long left = deadline - now_ms();
    signal_children(left > 0 ? SIGTERM : SIGKILL);
    // SIGCHLD is blocked: one that ends before this waits here.
    const long long wait = left > 0 ? left : GRACE_MS;
    const struct timespec timeout = {wait / 1000, wait % 1000 * 1000000};
    sigtimedwait(&of_children, NULL, &timeout);
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
  int status = STILL_RUNS;
  while (status == STILL_RUNS) {
    int received = 0;
    if (sigwait(&ours, &received) != 0) continue;
    // SIGHUP is our own starter's way to say that it is enough.
    if (getppid() != starter || received == SIGHUP) break;
    if (received == SIGCHLD) {
      reap(program, &status);
    } else {
      kill(program, received);
    }
  }
  end_descendants(program, &status);
  return end_as(status);
}
