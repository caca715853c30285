import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findCgroupPlace, findCgroupPlaces } from '../../lib/proc/cgroup-place.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cowlab-place-'));
});
afterEach(() => {
  rmSync(root, { recursive: true });
});

function put(path: string, text: string): void {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
}

/** A v2 cgroup with its four files; the root of the hierarchy has no type. */
function cgroup(path: string, offered: string, enabled: string, procs = '', type = 'domain'): void {
  put(`cg${path}/cgroup.controllers`, offered);
  put(`cg${path}/cgroup.subtree_control`, enabled);
  put(`cg${path}/cgroup.procs`, procs);
  if (type !== '') put(`cg${path}/cgroup.type`, type);
}

function mountV2(own: string, options = 'rw'): void {
  put('proc/self/cgroup', `0::${own}\n`);
  put('proc/self/mountinfo', `30 1 0:26 / /cg ${options} - cgroup2 cgroup2 rw\n`);
}

/** @param writable Cgroups whose files this user owns; undefined for all. */
function find(writable?: string[], uid = 1000) {
  const owned = writable?.map((path) => join(root, `cg${path}`));
  const mayWrite = (path: string): boolean => owned?.some((one) => path === one || dirname(path) === one) ?? true;
  return findCgroupPlaces({ procRoot: join(root, 'proc'), fsRoot: root, mayWrite, uid }).memory;
}

describe('a place for a cgroup in v2', () => {
  it('is the nearest ancestor that gives its children the controllers, and not the own one, which has processes', () => {
    mountV2('/a/b/c');
    cgroup('', 'memory pids', 'memory pids', '1\n', '');
    cgroup('/a', 'memory pids', 'memory pids');
    cgroup('/a/b', 'memory pids', 'memory pids');
    cgroup('/a/b/c', 'memory pids', '', '7\n');
    expect(find()).toEqual({ version: 'v2', parent: join(root, 'cg/a/b'), enable: [] });
  });

  it('must be one whose cgroup.procs may be written, as that of a delegated subtree', () => {
    mountV2('/user/app/run');
    cgroup('', 'memory pids', 'memory pids', '', '');
    cgroup('/user', 'memory pids', 'memory pids');
    cgroup('/user/app', 'memory pids', 'memory pids');
    cgroup('/user/app/run', 'memory pids', '', '7\n');
    expect(find(['/user/app', '/user/app/run'])).toMatchObject({ parent: join(root, 'cg/user/app') });
    const none = find(['/user/app/run']);
    expect(none).toMatchObject({ reason: expect.stringMatching(/this user may make no cgroup/) as string });
  });

  it('may need controllers to be enabled: in the root, or where no processes are', () => {
    mountV2('/');
    cgroup('', 'memory pids', '', '1\n7\n', '');
    expect(find()).toEqual({ version: 'v2', parent: join(root, 'cg'), enable: ['memory', 'pids'] });
    mountV2('/own');
    cgroup('', 'memory pids', 'memory', '', '');
    cgroup('/own', 'memory', '', '7\n');
    expect(find(['/own'])).toHaveProperty('reason');
    expect(find()).toEqual({ version: 'v2', parent: join(root, 'cg'), enable: ['pids'] });
  });

  it('is rather one further up than one where something has to be changed', () => {
    mountV2('/a/b');
    cgroup('', 'memory pids', 'memory pids', '', '');
    cgroup('/a', 'memory pids', '');
    cgroup('/a/b', '', '', '7\n');
    expect(find()).toEqual({ version: 'v2', parent: join(root, 'cg'), enable: [] });
  });

  it('with memory alone is taken where pids cannot be had, and the other way round', () => {
    mountV2('/');
    cgroup('', 'memory', 'memory', '', '');
    expect(find()).toEqual({ version: 'v2', parent: join(root, 'cg'), enable: [] });
    const options = { procRoot: join(root, 'proc'), fsRoot: root, mayWrite: () => true };
    expect(findCgroupPlace(['pids'], options)).toMatchObject({
      reason: expect.stringMatching(/controller pids is not offered/) as string,
    });
  });

  it('is not there in a container, with the reason', () => {
    mountV2('/', 'ro,nosuid');
    cgroup('', 'memory pids', 'memory pids', '', '');
    expect(find()).toMatchObject({ reason: expect.stringMatching(/mounted read-only, as in a container/) as string });
  });

  it('without one, names systemd-run to a user who has a systemd of his own, and cowlab vm to all', () => {
    mountV2('/own');
    cgroup('/own', 'memory pids', '', '7\n');
    expect(find([])).toMatchObject({ remedy: expect.not.stringMatching(/systemd-run/) as string });
    put('run/user/1000/systemd/private', '');
    expect(find([])).toMatchObject({
      remedy: expect.stringMatching(/systemd-run --user --scope.*cowlab vm run/) as string,
    });
  });
});

describe('a place for a cgroup in v1', () => {
  it('is the own cgroup of each hierarchy, or the nearest above it that may be written', () => {
    put('proc/self/cgroup', '4:memory:/x/y\n8:pids:/\n0::/\n');
    put(
      'proc/self/mountinfo',
      '35 31 0:32 / /m rw - cgroup cgroup rw,memory\n36 31 0:33 / /p rw - cgroup cgroup rw,pids\n',
    );
    put('m/x/y/cgroup.procs', '7\n');
    put('p/cgroup.procs', '7\n');
    const options = { procRoot: join(root, 'proc'), fsRoot: root };
    const places = findCgroupPlaces({ ...options, mayWrite: (path) => path !== join(root, 'm/x/y') });
    expect(places.memory).toEqual({ version: 'v1', parent: join(root, 'm/x'), enable: [] });
    expect(places.pids).toEqual({ version: 'v1', parent: join(root, 'p'), enable: [] });
  });

  it('is not there where nothing is mounted', () => {
    put('proc/self/cgroup', '0::/\n');
    put('proc/self/mountinfo', '');
    expect(find()).toMatchObject({ reason: expect.stringMatching(/no cgroup file system/) as string });
  });
});
