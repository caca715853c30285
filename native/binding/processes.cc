// fork, the sockets to forked processes, and wait.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "../core/access.h"
#include "../core/command.h"
#include "../core/process.h"
#include "arguments.h"
#include "parts.h"

namespace cowlab {
namespace {

constexpr uint64_t kMaxFd = 0x7fffffff;

// fork(channel, into): `channel` is the child's end of a pair from openChannel(), closed here in
// any case. `into` receives the pid and the nanoseconds. As little as can be is done after the
// fork, because until the child ends each page that Node writes costs a copy.
Napi::Value fork_from_node(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto into = typed_array_argument<Napi::Float64Array>(info, 1, napi_float64_array, 2,
                                                       "into must be a Float64Array(2)");
  const int number =
      static_cast<int>(integer_argument(info, 0, 0, kMaxFd, "channel must be a descriptor"));
  int type = 0;
  socklen_t size = sizeof(type);
  if (getsockopt(number, SOL_SOCKET, SO_TYPE, &type, &size) != 0)
    throw_failure(env, last_failure("getsockopt"));
  const Fd channel(number);
  const ForkedProcess process = unwrap(env, fork_process(channel.get()));
  into[0] = process.pid;
  into[1] = static_cast<double>(process.elapsed_ns);
  return env.Undefined();
}

Napi::Value open_channel_pair(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Channel channel = unwrap(env, open_channel());
  Napi::Array ends = Napi::Array::New(env, 2);
  ends.Set(0u, channel.ours.release());
  ends.Set(1u, channel.theirs.release());
  return ends;
}

// sendCommand(fd, words, passedFd | -1): one command, with a descriptor if there is one. Never
// blocks.
Napi::Value send_command(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = static_cast<int>(integer_argument(info, 0, 0, kMaxFd, "fd must be a descriptor"));
  const auto words = typed_array_argument<Napi::BigUint64Array>(
      info, 1, napi_biguint64_array, sizeof(Command) / sizeof(uint64_t),
      "words must be a BigUint64Array(16)");
  if (!info[2].IsNumber()) throw_type_error(env, "passedFd must be a number");
  const int passed = info[2].As<Napi::Number>().Int32Value();

  Command command;
  memcpy(&command, words.Data(), sizeof(command));
  iovec part{&command, sizeof(command)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (passed >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof(int));
  }
  const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0) throw_failure(env, last_failure("sendmsg"));
  // A stream socket may take less; commands are sent one at a time, so this means a full socket.
  if (sent != static_cast<ssize_t>(sizeof(command))) throw_failure(env, Failure{EAGAIN, "sendmsg"});
  return env.Undefined();
}

// waitProcess(pid, patienceUs, into): false if it still lives after so many microseconds; else
// true, and `into` holds status, minor and major faults, maximum RSS in bytes, and user and system
// time in microseconds.
Napi::Value wait_without_blocking(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const pid_t pid = pid_argument(info, 0);
  const uint64_t patience_us =
      integer_argument(info, 1, 0, 1000, "patienceUs must be at most 1000");
  auto into = typed_array_argument<Napi::Float64Array>(info, 2, napi_float64_array, 6,
                                                       "into must be a Float64Array(6)");
  const WaitReport report = unwrap(env, wait_process(pid, patience_us));
  if (!report.ended) return Napi::Boolean::New(env, false);
  const rusage& usage = report.usage;
  into[0] = report.status;
  into[1] = static_cast<double>(usage.ru_minflt);
  into[2] = static_cast<double>(usage.ru_majflt);
  into[3] = static_cast<double>(usage.ru_maxrss) * 1024;
  into[4] = static_cast<double>(usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec);
  into[5] = static_cast<double>(usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec);
  return Napi::Boolean::New(env, true);
}

// createMemfd(pages): a memfd of that size, one hole, that can be written but never shrunk.
Napi::Value create_memfd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint64_t pages = integer_argument(info, 0, 1, 1ULL << 34, "pages must be from 1 to 2^34");
  Fd fd(memfd_create("cowlab", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) throw_failure(env, last_failure("memfd_create"));
  if (ftruncate(fd.get(), static_cast<off_t>(pages * page_size())) != 0) {
    throw_failure(env, last_failure("ftruncate"));
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) throw_failure(env, last_failure("fcntl"));
  return Napi::Number::New(env, fd.release());
}

}  // namespace

void export_processes(Napi::Env env, Napi::Object exports) {
  exports.Set("fork", Napi::Function::New(env, fork_from_node));
  exports.Set("openChannel", Napi::Function::New(env, open_channel_pair));
  exports.Set("sendCommand", Napi::Function::New(env, send_command));
  exports.Set("waitProcess", Napi::Function::New(env, wait_without_blocking));
  exports.Set("createMemfd", Napi::Function::New(env, create_memfd));
}

}  // namespace cowlab
