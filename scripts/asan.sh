#!/bin/bash
# Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer, beside the usual one, and runs the kernel tests
# and the headline experiments on it. Arguments go to vitest.
set -euo pipefail
cd "$(dirname "$0")/.."

# node-gyp always builds into ./build, so the sanitized addon has a directory of its own to be built from.
place=build/asan
mkdir -p "$place"
rm -rf "$place/native"
cp -a binding.gyp package.json native "$place/"
echo 'Building the addon with sanitizers...'
{
  node_modules/.bin/node-gyp --directory="$place" configure -- -Dsanitize=1 &&
    node_modules/.bin/node-gyp --directory="$place" build
} >"$place/build.log" 2>&1 || {
  cat "$place/build.log" >&2
  exit 1
}

fail() {
  echo "asan.sh: $1" >&2
  exit 1
}
addon=$(find "$PWD/$place/build/Release" -maxdepth 1 -name '*.node' -print -quit)
runtime=$("${CC:-gcc}" -print-file-name=libasan.so)
[[ -e "$runtime" ]] || fail 'the compiler has no libasan.so'
[[ $(nm -D "$addon") == *__asan_* ]] || fail "$addon is not instrumented: look for sanitize in binding.gyp"

# The leak check stops the process by ptrace, which some containers forbid.
leaks=1
LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=1 node -e 0 2>/dev/null || leaks=0
[[ $leaks = 1 ]] || echo 'The leak check does not work here and is off.'

# Forked processes have no terminal to report to, so every report goes to a file, and any file is a failure.
reports=$PWD/$place/report
rm -f "$reports".*
show_reports() {
  local status=$?
  if compgen -G "$reports.*" >/dev/null; then
    cat "$reports".* >&2
    status=1
  fi
  exit "$status"
}
trap show_reports EXIT

export COWLAB_ADDON=$addon
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:log_path=$reports
# Tests ask for more memory than there is, and expect to hear it as an error.
asan_options=halt_on_error=1:allocator_may_return_null=1:log_path=$reports

# The leak check belongs here, to a program that ends by itself; the tests start other programs, which may well leak.
LD_PRELOAD=$runtime ASAN_OPTIONS=$asan_options:detect_leaks=$leaks node dist/cli/main.js run enomem cow-growth

# Only the workers of vitest are preloaded (vitest.config.ts).
# Shadow memory is charged as any other, to cgroups and to Committed_AS: what oom and strict expect is of a plain Node.
# What is repeated at many random moments is repeated less: memory errors show at the first. Experiments and random
# programs that take minutes and have no C++ of their own are left to the usual run. So are tree-watch and watch-pace, whose
# shells are preloaded too, and then copy what a shell does not.
exclude=()
for name in oom strict cpython multiprocessing read-only shared-memory tree-watch watch-pace hugetlb-machine \
  ksm-machine swap-machine; do
  exclude+=(--exclude "**/$name.test.ts")
done
COWLAB_SHORT=1 COWLAB_PROGRAMS=100 COWLAB_PRELOAD=$runtime ASAN_OPTIONS=$asan_options:detect_leaks=0 node_modules/.bin/vitest run --project kernel \
  "${exclude[@]}" "$@"
