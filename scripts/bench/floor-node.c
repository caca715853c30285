// What a fork of Node takes in C, by a module of Node's own: its memory is copied as well, whoever
// calls. forkCall() gives the nanoseconds of fork(); the child does what that of fork_floor() does.
#define _GNU_SOURCE
#include <node_api.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static napi_value fork_call(napi_env env, napi_callback_info info) {
  (void)info;
  int hold[2];
  napi_value result = NULL;
  if (pipe(hold) != 0) {
    napi_throw_error(env, NULL, "pipe failed");
    return NULL;
  }
  const double start = now_ns();
  const pid_t child = fork();
  if (child == 0) {
    char byte;
    close(hold[1]);
    _exit(read(hold[0], &byte, 1) != 0);
  }
  const double elapsed = now_ns() - start;
  close(hold[0]);
  close(hold[1]);
  if (child < 0 || waitpid(child, NULL, 0) != child) {
    napi_throw_error(env, NULL, "fork failed");
    return NULL;
  }
  napi_create_double(env, elapsed, &result);
  return result;
}

NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "forkCall", NAPI_AUTO_LENGTH, fork_call, NULL, &function);
  napi_set_named_property(env, exports, "forkCall", function);
  return exports;
}
