"""Objects of CPython on their pages, and what a forked child does to these pages.

  objects.py COUNT FREEZE

Makes COUNT lists of one element and an array of as many doubles, collects (and freezes them, if FREEZE is 1), and says
on which pages they lie. Then, by lines:
  fork          makes a child, which does nothing yet; says its pid
  do ACTION     has the child do it: nothing, read, collect, array; says when it has
  reap          ends the child
  keep WHICH N  drops all lists but N: scattered or together; says where the survivors lie
  quit
"""
import array
import gc
import json
import mmap
import os
import sys

PAGE = mmap.PAGESIZE
# PyGC_Head, in front of what id() is the address of [Include/internal/pycore_gc.h].
GC_HEAD = 16


def say(**what):
    print(json.dumps(what), flush=True)


def runs(pages):
    """Pages as [first, count] in ascending order."""
    found = []
    for page in sorted(pages):
        if found and page == found[-1][0] + found[-1][1]:
            found[-1][1] += 1
        else:
            found.append([page, 1])
    return found


def pages_of(objects):
    counts = {id(one) // PAGE for one in objects}
    heads = {(id(one) - GC_HEAD) // PAGE for one in objects}
    return {'counts': runs(counts), 'heads': runs(heads)}


def nothing(objects, numbers):
    pass


def read(objects, numbers):
    for one in objects:
        pass


def collect(objects, numbers):
    gc.collect()


def look_at_array(objects, numbers):
    sum(numbers)


ACTIONS = {'nothing': nothing, 'read': read, 'collect': collect, 'array': look_at_array}


def child(orders, reports, objects, numbers):
    while True:
        action = os.read(orders, 64).decode()
        if not action:
            os._exit(0)
        ACTIONS[action](objects, numbers)
        os.write(reports, b'.')


def main():
    count, freeze = int(sys.argv[1]), sys.argv[2] == '1'
    gc.disable()
    objects = [[None] for _ in range(count)]
    numbers = array.array('d', bytes(8 * count))
    gc.collect()
    if freeze:
        gc.freeze()
    address, length = numbers.buffer_info()
    # Pages that are the array's alone.
    first, end = -(-address // PAGE), (address + length * numbers.itemsize) // PAGE
    say(pid=os.getpid(), release='.'.join(map(str, sys.version_info[:3])), array=[first, max(0, end - first)],
        **pages_of(objects))
    pid = orders = reports = -1
    for line in sys.stdin:
        command, *words = line.split()
        if command == 'fork':
            reader, orders = os.pipe()
            reports, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(orders)
                child(reader, writer, objects, numbers)
            os.close(reader)
            os.close(writer)
            say(child=pid)
        elif command == 'do':
            os.write(orders, words[0].encode())
            say(done=os.read(reports, 1) == b'.')
        elif command == 'reap':
            os.close(orders)
            os.waitpid(pid, 0)
            os.close(reports)
            say(reaped=True)
        elif command == 'keep':
            which, left = words[0], int(words[1])
            kept = objects[:left] if which == 'together' else objects[::max(1, len(objects) // left)][:left]
            objects = kept
            gc.collect()
            say(**pages_of(kept), kept=len(kept))
        else:
            break


main()
