"""The program of the question: a parent with a big list, and a Pool of workers.

Talks by lines: it says what it has in JSON, and does what it is told:
  pool METHOD COUNT   starts a Pool, and says the pids of its workers or the error
  work                has every worker look at the list, and says what they saw
  beyond PAGES        grows an anonymous mapping to so many pages, none of which it touches
  close               takes the Pool away
  quit
"""
import json
import mmap
import multiprocessing
import os
import sys

DATA = []

# Once for each os.fork(), whether it was refused or not.
FORKS = []
os.register_at_fork(after_in_parent=lambda: FORKS.append(os.getpid()))


def say(**what):
    print(json.dumps(what), flush=True)


def look(number):
    """What a worker sees: how many elements, and their sum. Fresh interpreters see none."""
    return os.getpid(), len(DATA), sum(DATA)


def main():
    DATA.extend(float(i) for i in range(int(sys.argv[1])))
    say(pid=os.getpid(), elements=len(DATA), default=multiprocessing.get_start_method())
    pool = None
    beyond = None
    for line in sys.stdin:
        command, *words = line.split()
        if command == 'pool':
            context = multiprocessing.get_context(words[0])
            FORKS.clear()
            try:
                pool = context.Pool(int(words[1]))
                say(workers=[child.pid for child in multiprocessing.active_children()])
            except OSError as error:
                # Pool has ended those that had started; the last fork is the one that was refused.
                say(errno=error.errno, error=f'{type(error).__name__}: {error}', started=max(0, len(FORKS) - 1))
        elif command == 'work':
            # One task each, so that every worker looks.
            seen = pool.map(look, range(pool._processes * 4), chunksize=1)
            say(workers=sorted({pid for pid, _, _ in seen}), elements=max(count for _, count, _ in seen))
        elif command == 'beyond':
            beyond = mmap.mmap(-1, int(words[0]) // 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            beyond.resize(int(words[0]) * mmap.PAGESIZE)
            say(bytes=len(beyond))
        elif command == 'close':
            if pool is not None:
                pool.terminate()
                pool.join()
            pool = None
            say(closed=True)
        else:
            break


if __name__ == '__main__':
    main()
