import { expect, test } from 'vitest';
import { FrameSet } from '../../lib/proc/frames.js';

test('a set of frames has each once, and none for 0, wherever in memory they lie', () => {
  const frames = new FrameSet();
  const high = 2 ** 40;
  frames.add(Float64Array.of(0, 1, 32, 31, 1, 2 ** 15, 2 ** 31, 2 ** 32 + 1, high + 33));
  expect(frames.size).toBe(7);
  frames.add(Float64Array.of(0, high + 33, 2 ** 32 + 1, 2 ** 15, 2 ** 31 + 1));
  expect(frames.size).toBe(8);
});
