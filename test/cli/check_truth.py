"""Is what `cowlab hold` prints true? By a reader of /proc that has no line in common with cowlab's.

usage: check_truth.py STEPS COMMAND...   holds the fixture, checks its line, and as many steps of it

Prints one JSON object: how many figures were compared, and every one that differs.
"""
import json
import os
import struct
import subprocess
import sys

# Documentation/admin-guide/mm/pagemap.rst
PRESENT, SWAPPED, EXCLUSIVE = 1 << 63, 1 << 62, 1 << 56
FRAME = (1 << 55) - 1
ZERO_PAGE = 1 << 24  # KPF_ZERO_PAGE of /proc/kpageflags


class Findings:
    def __init__(self):
        self.compared, self.differences = 0, []

    def same(self, what, truth, seen):
        self.compared += 1
        if truth != seen:
            self.differences.append('%s: %r is said, %r is seen' % (what, truth, seen))

    def figure(self, what, truth, seen):
        """A number, a range or an unknown, as the schema has it."""
        if isinstance(truth, dict):
            if 'min' in truth:
                self.same(what + ' in its range', True, truth['min'] <= seen <= truth['max'])
        else:
            self.same(what, truth, seen)


def read_smaps(pid):
    vmas = []
    with open('/proc/%d/smaps' % pid) as file:
        for line in file:
            words = line.split()
            if words[0].endswith(':'):
                if words[0] == 'VmFlags:':
                    vmas[-1]['flags'] = words[1:]
                elif words[-1] == 'kB':
                    vmas[-1][words[0][:-1]] = int(words[1])
            else:
                start, end = (int(part, 16) for part in words[0].split('-'))
                vmas.append({'start': start, 'end': end, 'perms': words[1]})
    return vmas


def entries(file, first, count):
    return struct.unpack('<%dQ' % count, os.pread(file.fileno(), count * 8, first * 8))


class Frames:
    """What root is told of page frames; each is looked up once."""

    def __init__(self):
        self.known = {}
        self.flags, self.counts = open('/proc/kpageflags', 'rb'), open('/proc/kpagecount', 'rb')

    def of(self, frame):
        if frame not in self.known:
            flags, = entries(self.flags, frame, 1)
            count, = entries(self.counts, frame, 1)
            self.known[frame] = (bool(flags & ZERO_PAGE), count)
        return self.known[frame]


def state_of(entry, frames):
    if entry & SWAPPED:
        return 'swapped'
    if not entry & PRESENT:
        return 'not-present'
    if frames is None:
        return 'exclusive' if entry & EXCLUSIVE else 'shared'
    zero, count = frames.of(entry & FRAME)
    return 'zero' if zero else 'exclusive' if count == 1 else 'shared'


def check_region(findings, where, pid, region, vmas, page_size, frames, used):
    start = int(region['address'], 16)
    end = start + region['lengthBytes']
    findings.same(where + ' length', region['lengthBytes'], region['pages'] * page_size)
    own = [vma for vma in vmas if start <= vma['start'] and vma['end'] <= end and 'dd' not in vma['flags']]
    said = [(start + vma['first'] * page_size, vma['pages'] * page_size, vma['protection'][:2]) for vma in region['vmas']]
    seen = [(vma['start'], vma['end'] - vma['start'], vma['perms'].replace('-', '')[:-1] or 'no') for vma in own]
    findings.same(where + ' VMAs', said, seen)
    for field, truth in list(region['smapsKb'].items()) + list(region['measuredKb'].items()):
        if all(field in vma for vma in own):
            findings.figure(where + ' ' + field, truth, sum(vma[field] for vma in own))
    for state, count in region['counts'].items():
        findings.same('%s pages %s' % (where, state), count, sum(pages for pages, of in region['states'] if of == state))
    # A huge region of nothing is not read page by page.
    if {state for _, state in region['states']} == {'not-present'}:
        findings.same(where + ' Rss of nothing', 0, sum(vma['Rss'] for vma in own))
        return
    mapped = set()
    for vma in own:
        mapped.update(range((vma['start'] - start) // page_size, (vma['end'] - start) // page_size))
    seen = []
    with open('/proc/%d/pagemap' % pid, 'rb') as pagemap:
        for page, entry in enumerate(entries(pagemap, start // page_size, region['pages'])):
            seen.append(state_of(entry, frames) if page in mapped else 'not-present')
            if frames and seen[-1] in ('exclusive', 'shared'):
                used.add(entry & FRAME)
    said = [state for count, state in region['states'] for _ in range(count)]
    if not frames:
        # Only root sees frames, and so which page is the zero page.
        said = ['shared' if state == 'zero' else state for state in said]
    findings.same(where + ' states', True, said == seen)


def check(findings, truth):
    used, frames = set(), Frames() if os.geteuid() == 0 else None
    for process in truth['processes']:
        pid, where = process['pid'], 'step %d %s' % (truth['step'], process['process'])
        with open('/proc/%d/stat' % pid) as file:
            fields = file.read().rsplit(')', 1)[1].split()
        findings.same(where + ' parent', process['ppid'], int(fields[1]))
        findings.same(where + ' start time', process['startTimeTicks'], int(fields[19]))
        vmas = read_smaps(pid)
        for region in process['regions']:
            check_region(findings, where + ' ' + region['region'], pid, region, vmas, truth['pageSizeBytes'], frames, used)
        private = sum(vma['Private_Clean'] + vma['Private_Dirty'] + vma['Private_Hugetlb'] for vma in vmas)
        findings.figure(where + ' USS', process['ussKb'], private - process['outside']['ussKb'])
        findings.figure(where + ' Rss', process['smapsKb'].get('Rss', 0),
                        sum(vma['Rss'] for vma in vmas) - process['outside']['smapsKb']['Rss'])
    for field, total in truth['totals']['smapsKb'].items():
        if isinstance(total, int):
            parts = [region['smapsKb'][field] for process in truth['processes'] for region in process['regions']]
            findings.same('total ' + field, total, sum(parts))
    if frames:
        findings.figure('total frames', truth['totals']['frames'], len(used))


def main():
    steps, command = int(sys.argv[1]), sys.argv[2:]
    findings = Findings()
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    truth = json.loads(holder.stdout.readline())
    refused, step = [], 0
    while True:
        check(findings, truth)
        refused.append(truth.get('refused', {}).get('code'))
        if step == steps or not truth['more']:
            break
        step += 1
        print('step', file=holder.stdin, flush=True)
        truth = json.loads(holder.stdout.readline())
    print('quit', file=holder.stdin, flush=True)
    findings.same('answer to quit', {'quit': True}, json.loads(holder.stdout.readline()))
    findings.same('exit code', 0, holder.wait())
    for process in truth['processes']:
        findings.same('%d has ended' % process['pid'], False, os.path.exists('/proc/%d' % process['pid']))
    answer = {
        'compared': findings.compared,
        'differences': findings.differences,
        'steps': step,
        'refused': refused,
        'processes': len(truth['processes']),
        'unchecked': truth['checked']['unchecked'],
    }
    print(json.dumps(answer))


main()
