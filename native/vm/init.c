/**
 * PID 1 of the guest of `cowlab vm`. It mounts what a Linux system has, carries out one command,
 * sends what the command writes and how it ended over a serial port, and switches the machine off.
 *
 * What goes over the port is read by lib/vm/frames.ts: MAGIC, then frames of a type, a length and a
 * CRC-32 (both 32 bits, little-endian), and as many bytes: 'o' standard output, 'e' standard error,
 * 'x' the end, which holds the wait status (32 bits) and how many bytes of each went before (64
 * bits each).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static const char MAGIC[] = "\ncowlab guest 1\n";

enum { MAX_PAYLOAD = 4096, HEADER_BYTES = 9, MAX_STRINGS = 1024 };

static int port = -1;

static _Noreturn void switch_off(void) {
  sync();
  reboot(RB_POWER_OFF);
  // Without ACPI there is no power switch; qemu is started with -no-reboot, and ends at this as
  // well.
  reboot(RB_AUTOBOOT);
  for (;;) pause();
}

/** Gives up; the console's last lines are what the harness shows. */
static _Noreturn void die(const char *what) {
  dprintf(STDERR_FILENO, "cowlab-init: %s: %s\n", what, strerror(errno));
  switch_off();
}

// What the guest has of a system

static void try_mount(const char *type, const char *place, const char *options) {
  mkdir(place, 0755);
  if (mount(type, place, type, 0, options) != 0) {
    dprintf(STDERR_FILENO, "cowlab-init: mount %s on %s: %s\n", type, place, strerror(errno));
  }
}

static void write_file(const char *path, const char *text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) {
    dprintf(STDERR_FILENO, "cowlab-init: %s: %s\n", path, strerror(errno));
  }
  if (fd >= 0) close(fd);
}

/** As systemd leaves them: the controllers that experiments use are there in every group below the
 * root. */
static void mount_cgroups(void) {
  // A word of the kernel's command line that it does not know is in the environment of PID 1.
  const char *version = getenv("COWLAB_CGROUP");
  if (version == NULL || strcmp(version, "v1") != 0) {
    try_mount("cgroup2", "/sys/fs/cgroup", "");
    write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids");
    return;
  }
  try_mount("tmpfs", "/sys/fs/cgroup", "mode=755");
  try_mount("cgroup", "/sys/fs/cgroup/memory", "memory");
  try_mount("cgroup", "/sys/fs/cgroup/pids", "pids");
}

static void mount_all(void) {
  try_mount("devtmpfs", "/dev", "mode=755");
  // Without /dev/console in the initramfs the kernel gives PID 1 no files at all, and the first
  // opened would be its 0.
  for (int fd = 0; fd <= STDERR_FILENO;) {
    fd = open("/dev/console", O_RDWR);
    if (fd < 0) fd = open("/dev/null", O_RDWR);
    if (fd < 0) break;
    if (fd > STDERR_FILENO) close(fd);
  }
  try_mount("proc", "/proc", "");
  try_mount("sysfs", "/sys", "");
  try_mount("devpts", "/dev/pts", "mode=620,ptmxmode=666");
  try_mount("tmpfs", "/dev/shm", "mode=1777");
  mount_cgroups();
}

// The port

static void open_port(void) {
  const char *name = getenv("COWLAB_PORT");
  char path[64];
  snprintf(path, sizeof path, "/dev/%s", name != NULL ? name : "ttyS1");
  port = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (port < 0) die(path);
  struct termios settings;
  if (tcgetattr(port, &settings) != 0) die(path);
  cfmakeraw(&settings);
  cfsetspeed(&settings, B115200);
  settings.c_cflag |= CLOCAL;
  if (tcsetattr(port, TCSANOW, &settings) != 0) die(path);
}

static void send_bytes(const uint8_t *bytes, size_t length) {
  while (length > 0) {
    const ssize_t written = write(port, bytes, length);
    if (written < 0 && errno != EINTR) die("the port");
    if (written < 0) continue;
    bytes += written;
    length -= (size_t)written;
  }
}

static void put_le(uint8_t *to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * i));
}

/** CRC-32 as in gzip and zlib.crc32. */
static uint32_t crc32(const uint8_t *bytes, size_t length) {
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < length; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

static void send_frame(char type, const uint8_t *payload, size_t length) {
  uint8_t frame[HEADER_BYTES + MAX_PAYLOAD];
  frame[0] = (uint8_t)type;
  put_le(frame + 1, length, 4);
  put_le(frame + 5, crc32(payload, length), 4);
  memcpy(frame + HEADER_BYTES, payload, length);
  send_bytes(frame, HEADER_BYTES + length);
}

// The command

/** Reads a file of NUL-terminated strings, as /proc/PID/cmdline is one. */
static char **read_strings(const char *path) {
  static char *none[] = {NULL};
  struct stat status;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &status) != 0) die(path);
  const size_t length = (size_t)status.st_size;
  char *text = malloc(length + 1);
  char **strings = calloc(MAX_STRINGS + 1, sizeof *strings);
  if (text == NULL || strings == NULL) die(path);
  if (read(fd, text, length) != (ssize_t)length) die(path);
  close(fd);
  text[length] = '\0';
  int count = 0;
  for (size_t at = 0; at < length && count < MAX_STRINGS; at += strlen(text + at) + 1)
    strings[count++] = text + at;
  return count > 0 ? strings : none;
}

static const char *value_of(char **environment, const char *name) {
  const size_t length = strlen(name);
  for (; *environment != NULL; environment++) {
    if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
      return *environment + length + 1;
  }
  return NULL;
}

struct stream {
  char type;
  int fd;
  uint64_t bytes;
};

static _Noreturn void become_command(int out, int err) {
  char **argv = read_strings("/cowlab/argv");
  char **environment = read_strings("/cowlab/environ");
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  setsid();
  const int null = open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  if (null > STDERR_FILENO) close(null);
  const char *folder = value_of(environment, "PWD");
  if (folder != NULL && chdir(folder) != 0)
    dprintf(STDERR_FILENO, "cowlab-init: %s: %s\n", folder, strerror(errno));
  if (argv[0] != NULL) execve(argv[0], argv, environment);
  dprintf(STDERR_FILENO, "cowlab-init: %s: %s\n", argv[0] != NULL ? argv[0] : "no command",
          strerror(errno));
  _exit(127);
}

static pid_t start_command(struct stream streams[2]) {
  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) die("pipe");
  const pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) become_command(out[1], err[1]);
  close(out[1]);
  close(err[1]);
  fcntl(out[0], F_SETFL, O_NONBLOCK);
  fcntl(err[0], F_SETFL, O_NONBLOCK);
  streams[0] = (struct stream){'o', out[0], 0};
  streams[1] = (struct stream){'e', err[0], 0};
  return pid;
}

/** Sends on what can be read without waiting. */
static void forward(struct stream *stream) {
  uint8_t buffer[MAX_PAYLOAD];
  while (stream->fd >= 0) {
    const ssize_t length = read(stream->fd, buffer, sizeof buffer);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return;
    if (length == 0) {
      close(stream->fd);
      stream->fd = -1;
      return;
    }
    send_frame(stream->type, buffer, (size_t)length);
    stream->bytes += (uint64_t)length;
  }
}

/** Reaps every child that has ended, orphans too. @return Whether the command was among them. */
static int reap(pid_t command, int *status) {
  int found = 0;
  int one;
  for (pid_t pid; (pid = waitpid(-1, &one, WNOHANG)) > 0;) {
    if (pid != command) continue;
    found = 1;
    *status = one;
  }
  return found;
}

static void run(void) {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, NULL);
  const int ended = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (ended < 0) die("signalfd");
  struct stream streams[2];
  const pid_t command = start_command(streams);
  int status = 0;
  do {
    // poll(2) passes over a negative descriptor, which is a stream that has ended.
    struct pollfd polled[3] = {
        {ended, POLLIN, 0}, {streams[0].fd, POLLIN, 0}, {streams[1].fd, POLLIN, 0}};
    if (poll(polled, 3, -1) < 0 && errno != EINTR) die("poll");
    struct signalfd_siginfo info;
    while (read(ended, &info, sizeof info) > 0) continue;
    for (int i = 0; i < 2; i++) forward(&streams[i]);
  } while (!reap(command, &status));
  // What the command wrote last may still be in the pipes; what orphans would write is nobody's.
  for (int i = 0; i < 2; i++) forward(&streams[i]);
  uint8_t end[20];
  put_le(end, (uint32_t)status, 4);
  put_le(end + 4, streams[0].bytes, 8);
  put_le(end + 12, streams[1].bytes, 8);
  send_frame('x', end, sizeof end);
  tcdrain(port);
}

int main(void) {
  if (getpid() != 1) {
    fprintf(stderr, "cowlab-init is PID 1 of a virtual machine, and does nothing here\n");
    return 2;
  }
  mount_all();
  open_port();
  send_bytes((const uint8_t *)MAGIC, sizeof MAGIC - 1);
  run();
  switch_off();
}
