"""What psutil takes to read the memory of a process; one run for each line on standard input.

  peers-memory.py full-info PID   memory_full_info: sums over the process
  peers-memory.py maps PID        memory_maps: an object for each VMA

Answers with nanoseconds, as floor.c does.
"""
import sys
import time

import psutil


def main():
    kind, process = sys.argv[1], psutil.Process(int(sys.argv[2]))
    for _ in sys.stdin:
        start = time.monotonic_ns()
        if kind == 'full-info':
            process.memory_full_info()
        else:
            process.memory_maps(grouped=False)
        print(time.monotonic_ns() - start, flush=True)


if __name__ == '__main__':
    main()
