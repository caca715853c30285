"""What Python's multiprocessing takes for what floor-sharing.c does; one run for each line on standard input.

  peers.py value|unlocked|array TIMES WORKERS   adding to one number
  peers.py queue MESSAGES                       numbers from one process to another

Answers with nanoseconds, as floor.c does.
"""
import multiprocessing
import sys
import time


def add(kind, shared, times):
    if kind == 'value':
        for _ in range(times):
            with shared.get_lock():
                shared.value += 1
    elif kind == 'unlocked':
        for _ in range(times):
            shared.value += 1
    else:
        for _ in range(times):
            with shared.get_lock():
                shared[0] += 1


def put(queue, times):
    for number in range(times):
        queue.put(number)
    queue.close()
    queue.join_thread()


def get(queue, times):
    for _ in range(times):
        queue.get()


def timed(barrier, results, work, args):
    barrier.wait()
    start = time.monotonic_ns()
    work(*args)
    results.put(time.monotonic_ns() - start)


def run(jobs):
    """Jobs that begin together, each in a process; the longest counts."""
    barrier = multiprocessing.Barrier(len(jobs))
    results = multiprocessing.SimpleQueue()
    workers = [multiprocessing.Process(target=timed, args=(barrier, results, work, args)) for work, args in jobs]
    for worker in workers:
        worker.start()
    elapsed = max(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return elapsed


def main():
    multiprocessing.set_start_method('fork')
    kind, times = sys.argv[1], int(sys.argv[2])
    for _ in sys.stdin:
        if kind == 'queue':
            queue = multiprocessing.Queue()
            jobs = [(put, (queue, times)), (get, (queue, times))]
        else:
            shared = {
                'value': lambda: multiprocessing.Value('Q', 0),
                'unlocked': lambda: multiprocessing.Value('Q', 0, lock=False),
                'array': lambda: multiprocessing.Array('Q', 16),
            }[kind]()
            jobs = [(add, (kind, shared, times))] * int(sys.argv[3])
        print(run(jobs), flush=True)


if __name__ == '__main__':
    main()
