#include "write_mark.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "fd.h"
#include "pagemap_scan.h"

namespace cowlab {
namespace {

// As in linux/userfaultfd.h of Linux 6.7, spelled out because older headers lack it.
struct UserfaultfdApi {
  uint64_t api;
  uint64_t features;
  uint64_t ioctls;
};
struct UserfaultfdRange {
  uint64_t start;
  uint64_t length;
};
struct UserfaultfdRegister {
  UserfaultfdRange range;
  uint64_t mode;
  uint64_t ioctls;
};
constexpr unsigned long kApi = _IOWR(0xAA, 0x3F, UserfaultfdApi);
constexpr unsigned long kRegister = _IOWR(0xAA, 0x00, UserfaultfdRegister);
constexpr unsigned long kUnregister = _IOR(0xAA, 0x01, UserfaultfdRange);
constexpr uint64_t kVersion = 0xAA;
constexpr uint64_t kRegisterWriteProtect = 1 << 1;
// Brings UFFD_FEATURE_WP_UNPOPULATED along [fs/userfaultfd.c: userfaultfd_api]: pages that are not
// there are protected too, or the first read of one would look like a write.
constexpr uint64_t kFeatureAsync = 1 << 15;
// So it is open to everybody, whatever vm.unprivileged_userfaultfd says. It is about who waits in a
// fault, and here nobody does: writes by the kernel are tracked as well.
constexpr int kUserModeOnly = 1;

Result<Fd> open_userfaultfd() {
  Fd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | kUserModeOnly)));
  if (!fd.valid()) return last_failure("userfaultfd");
  UserfaultfdApi api{kVersion, kFeatureAsync, 0};
  if (ioctl(fd.get(), kApi, &api) != 0) return last_failure("userfaultfd");
  return fd;
}

// Three times as quick as any other [fs/proc/task_mmu.c: pagemap_scan_pmd_entry].
constexpr ScanFilter kWrittenWhole = {0, kIsWritten, 0};
// A page that was given back has lost its protection, or is of no tracked VMA any more. Then it is
// gone, of which kernels differ in whether it counts as written, or was read again: it is the zero
// page, or one of the file.
constexpr ScanFilter kWrittenAnonymous = {
    kIsZeroPage, kIsWriteProtectable | kIsWritten | kIsZeroPage, kIsPresent | kIsSwapped};
constexpr ScanFilter kWrittenCopy = {kIsFile, kIsWriteProtectable | kIsWritten | kIsFile,
                                     kIsPresent | kIsSwapped};
constexpr ScanFilter kWrittenShared = {0, kIsWriteProtectable | kIsWritten,
                                       kIsPresent | kIsSwapped};
// Where the kernel takes a shared page out of the page table, it leaves a marker if the page is
// write-protected [mm/memory.c: zap_install_uffd_wp_if_needed]. So one without was written.
constexpr ScanFilter kTakenShared = {kIsPresent | kIsSwapped,
                                     kIsWriteProtectable | kIsPresent | kIsSwapped, 0};

void join(std::vector<WrittenRun>* runs) {
  std::sort(runs->begin(), runs->end(),
            [](const WrittenRun& a, const WrittenRun& b) { return a.first < b.first; });
  size_t kept = 0;
  for (const WrittenRun& run : *runs) {
    WrittenRun* const last = kept > 0 ? &(*runs)[kept - 1] : nullptr;
    // A page that was written again between two looks may be in both.
    if (last && run.first <= last->first + last->pages) {
      last->pages = std::max(last->first + last->pages, run.first + run.pages) - last->first;
    } else {
      (*runs)[kept++] = run;
    }
  }
  runs->resize(kept);
}

}  // namespace

Result<int> track_writes(char* start, uint64_t length) {
  Result<Fd> fd = open_userfaultfd();
  if (!fd.ok()) return fd.failure();
  UserfaultfdRegister request{
      {reinterpret_cast<uint64_t>(start), length}, kRegisterWriteProtect, 0};
  if (ioctl(fd.value().get(), kRegister, &request) != 0) return last_failure("userfaultfd");
  return fd.value().release();
}

void stop_tracking(int fd, char* start, uint64_t length) {
  // To close it is enough, unless a child that was born moments ago still has its copy. Fails where
  // the region is gone.
  UserfaultfdRange range{reinterpret_cast<uint64_t>(start), length};
  ioctl(fd, kUnregister, &range);
  close(fd);
}

int probe_userfaultfd_wp_async() {
  const Result<Fd> fd = open_userfaultfd();
  return fd.ok() ? 0 : fd.failure().error;
}

Status protect_pages(int pagemap, uint64_t address, uint64_t pages, bool strictly) {
  ScanArgument argument{};
  argument.size = sizeof(argument);
  argument.flags = kScanProtect;
  if (strictly) argument.flags |= kScanStrictly;
  argument.start = address;
  argument.end = address + pages * page_size();
  if (ioctl(pagemap, kPagemapScan, &argument) < 0) return last_failure("PAGEMAP_SCAN");
  return Done{};
}

Status find_written(int pagemap, uint64_t address, uint64_t pages, TrackedMemory memory,
                    std::vector<WrittenRun>* runs) {
  const auto look = [&](const ScanFilter& filter) {
    return scan_pages(pagemap, address, pages, filter, [runs](uint64_t first, uint64_t last) {
      runs->push_back(WrittenRun{first, last - first});
    });
  };
  int error = 0;
  if (memory == TrackedMemory::kWhole) error = look(kWrittenWhole);
  if (memory == TrackedMemory::kAnonymous) error = look(kWrittenAnonymous);
  if (memory == TrackedMemory::kObject) error = look(kWrittenCopy);
  if (memory == TrackedMemory::kShared) {
    error = look(kWrittenShared);
    if (error == 0) error = look(kTakenShared);
  }
  if (error != 0) return Failure{error, "PAGEMAP_SCAN"};
  join(runs);
  return Done{};
}

}  // namespace cowlab
