"""What psutil, smem and pmap say of held fixtures, beside the truth.

usage: ask_tools.py NODE MAIN FIXTURE...

Prints a JSON object for each fixture, a line each. All figures are kB.
"""
import json
import subprocess
import sys

import psutil


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def ask_psutil(pid):
    process = psutil.Process(pid)
    full = process.memory_full_info()
    maps = process.memory_maps(grouped=False)
    grouped = process.memory_maps(grouped=True)
    kb = {
        'psutil rss': full.rss,
        'psutil uss': full.uss,
        'psutil pss': full.pss,
        'psutil shared': full.shared,
        'psutil maps rss': sum(one.rss for one in maps),
        'psutil maps pss': sum(one.pss for one in maps),
        'psutil maps private': sum(one.private_clean + one.private_dirty for one in maps),
        'psutil grouped pss': sum(one.pss for one in grouped),
    }
    return dict({name: value // 1024 for name, value in kb.items()}, **{'psutil maps': len(maps)})


def ask_pmap(pid):
    total = run('pmap', '-x', str(pid))[-1].split()
    summary = run('pmap', '-d', str(pid))[-1].split()
    table = run('pmap', '-X', str(pid))
    names, sums = table[1].split()[5:-1], table[-1].split()
    return {
        'pmap -x Kbytes': int(total[2]),
        'pmap -x RSS': int(total[3]),
        'pmap -x Dirty': int(total[4]),
        'pmap -X Pss': int(sums[names.index('Pss')]),
        'pmap -d shared': int(summary[-1].rstrip('K')),
    }


def ask_smem():
    answers = {}
    for line in run('smem', '-H', '-P', 'cowlab-bare', '-c', 'pid uss pss rss'):
        pid, uss, pss, rss = (int(word) for word in line.split())
        answers[pid] = {'smem uss': uss, 'smem pss': pss, 'smem rss': rss}
    return answers


def hold(command):
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = holder.stdout.readline()
    if not line:
        return {'unavailable': holder.communicate()[1]}
    truth = json.loads(line)
    by_smem = ask_smem()
    pids = [process['pid'] for process in truth['processes']]
    answers = [dict(ask_psutil(pid), **by_smem[pid]) for pid in pids]
    # It is started three times for each, so not for all of many.
    for answer, pid in list(zip(answers, pids))[:5]:
        answer.update(ask_pmap(pid))
    holder.stdin.close()
    holder.wait()
    return {'truth': truth, 'answers': answers}


for fixture in sys.argv[3:]:
    print(json.dumps(hold([sys.argv[1], sys.argv[2], 'hold', fixture])), flush=True)
