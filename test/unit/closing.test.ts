import { expect, test } from 'vitest';
import { Closing } from '../../lib/experiments/closing.js';

test('what was opened last is closed first, each once', async () => {
  const closing = new Closing();
  const closed: string[] = [];
  closing.add(() => void closed.push('first'));
  const second = closing.add(() => void closed.push('second'));
  closing.add(() => void closed.push('third'));
  await second();
  await second();
  await closing.close();
  await closing.close();
  expect(closed).toEqual(['second', 'third', 'first']);
});

test('what fails to close keeps nothing else open, and the first failure is told', async () => {
  const closing = new Closing();
  const closed: string[] = [];
  closing.add(() => void closed.push('first'));
  closing.add(() => Promise.reject(new Error('of the second')));
  closing.add(() => {
    throw new Error('of the third');
  });
  await expect(closing.close()).rejects.toThrow('of the third');
  expect(closed).toEqual(['first']);
});

test('what is added while others are closed is closed too', async () => {
  const closing = new Closing();
  const closed: string[] = [];
  closing.add(() => {
    closing.add(() => void closed.push('late'));
  });
  await closing.close();
  expect(closed).toEqual(['late']);
});
