// fork, the sockets to forked processes, and wait.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "../core/access.h"
#include "../core/command.h"
#include "../core/process.h"
#include "../core/restrict.h"
#include "arguments.h"
#include "parts.h"

namespace cowlab {
namespace {

// fork(into): forks Node. `into` holds the pid, how many nanoseconds the call took, and our end of
// the socket to the child, which is the caller's from here on.
Napi::Value fork_from_node(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto into = typed_array_argument<Napi::Float64Array>(info, 0, napi_float64_array, 3,
                                                       "into must be a Float64Array(3)");
  std::vector<pid_t>& children = env.GetInstanceData<AddonData>()->children;
  children.reserve(children.size() + 1);  // now: after the fork, memory is dear
  ForkedProcess process = unwrap(env, fork_process());
  children.push_back(process.pid);
  into[0] = process.pid;
  into[1] = static_cast<double>(process.elapsed_ns);
  into[2] = process.channel.release();
  return env.Undefined();
}

Napi::Value open_channel_pair(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Channel channel = unwrap(env, open_channel());
  Napi::Array ends = Napi::Array::New(env, 2);
  ends.Set(0u, channel.ours.get());
  ends.Set(1u, channel.theirs.get());
  // From here on JavaScript owns them.
  channel.ours.release();
  channel.theirs.release();
  return ends;
}

// openPipe(): the reading and the writing end.
Napi::Value open_pipe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw_failure(env, last_failure("pipe2"));
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  Napi::Array result = Napi::Array::New(env, 2);
  result.Set(0u, reader.get());
  result.Set(1u, writer.get());
  reader.release();
  writer.release();
  return result;
}

// sendCommand(fd, words, passedFd | -1): one command, with a descriptor if there is one. Never
// blocks.
Napi::Value send_command(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = fd_argument(info, 0, 0, "fd must be a descriptor");
  const auto words = typed_array_argument<Napi::BigUint64Array>(
      info, 1, napi_biguint64_array, sizeof(Command) / sizeof(uint64_t),
      "words must be a BigUint64Array(16)");
  const int passed = fd_argument(info, 2, -1, "passedFd must be a descriptor or -1");

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

// waitProcess(pid, into): false while it lives; else true, and `into` holds status, minor and major
// faults, maximum RSS in bytes, and user and system time in microseconds.
Napi::Value wait_without_blocking(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const pid_t pid = pid_argument(info, 0);
  auto into = typed_array_argument<Napi::Float64Array>(info, 1, napi_float64_array, 6,
                                                       "into must be a Float64Array(6)");
  AddonData* data = env.GetInstanceData<AddonData>();
  // Others have children too: libuv waits for those of child_process.
  const bool forked = std::erase(data->children, pid) > 0;
  std::vector<pid_t>& ours = forked ? data->children : data->programs;
  if (!forked && std::erase(data->programs, pid) == 0) {
    throw_type_error(env, "pid must be that of a process started here");
  }
  const Result<WaitReport> waited = wait_process(pid);
  if (!waited.ok() || !waited.value().ended) ours.push_back(pid);
  const WaitReport report = unwrap(env, waited);
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

// preferProcess(pid, preferred): to run before all ordinary processes, or as one of them.
Napi::Value prefer_process_for_javascript(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const pid_t pid = pid_argument(info, 0);
  if (!info[1].IsBoolean()) throw_type_error(env, "preferred must be true or false");
  const int error = prefer_process(pid, info[1].As<Napi::Boolean>().Value());
  if (error != 0) throw_failure(env, Failure{error, "sched_setscheduler"});
  return env.Undefined();
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
  const Napi::Number result = Napi::Number::New(env, fd.get());
  fd.release();
  return result;
}

}  // namespace

void export_processes(Napi::Env env, Napi::Object exports) {
  exports.Set("fork", Napi::Function::New(env, fork_from_node));
  exports.Set("openChannel", Napi::Function::New(env, open_channel_pair));
  exports.Set("openPipe", Napi::Function::New(env, open_pipe));
  exports.Set("sendCommand", Napi::Function::New(env, send_command));
  exports.Set("waitProcess", Napi::Function::New(env, wait_without_blocking));
  exports.Set("preferProcess", Napi::Function::New(env, prefer_process_for_javascript));
  exports.Set("createMemfd", Napi::Function::New(env, create_memfd));
}

}  // namespace cowlab
