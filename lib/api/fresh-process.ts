/** Processes in the native command loop that were not forked from Node, and have none of its memory. */
import { addonPath } from '../native.js';
import { ownProgram } from '../own-program.js';
import { Op } from './command.js';
import { ForkedProcess } from './forked-process.js';

/**
 * A fresh Node, by posix_spawn, that never runs JavaScript of yours: it enters the command loop, as what fork() makes
 * does, and has none of this process's memory. What "spawn" is to Python's multiprocessing.
 *
 * @throws SystemError from posix_spawn.
 * @throws FeatureUnavailableError on anything but Linux.
 */
export function spawnFresh(): ForkedProcess {
  // Not our own script, so that nothing but the addon is loaded there.
  const script = 'require(process.argv[1]).enterCommandLoop(3, Number(process.argv[2]))';
  return ForkedProcess.fromProgram([process.execPath, '-e', script, addonPath(), String(process.pid)], null);
}

/**
 * @internal A small native program in the command loop, by posix_spawn. Where it could be linked statically it has no page
 * in common with any other program: so all that its tree shares, and what that counts for, is known.
 */
export async function spawnBare(): Promise<ForkedProcess> {
  const bare = ForkedProcess.fromProgram([ownProgram('cowlab-bare'), String(process.pid)], []);
  try {
    // It answers once it has settled, and maps nothing more by itself.
    await bare.perform({ op: Op.restrict });
    return bare;
  } catch (error) {
    await bare.close();
    throw error;
  }
}
