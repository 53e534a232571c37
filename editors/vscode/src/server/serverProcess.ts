// The language server's processes: started for the client, and ended when nobody wants them any more, whether they
// answer or not. No editor needed: see test/serverProcess.test.ts.

import { type ChildProcess, spawn } from "node:child_process";
import { homedir } from "node:os";

/** How long a process may take that was told to end: over its protocol, by a signal. */
const OWN_END_MS = 2000;
const SIGNALLED_END_MS = 1000;

export class ServerProcess {
  private child: ChildProcess | undefined;
  private isWanted = true;

  constructor(
    private readonly command: string,
    private readonly args: readonly string[],
    private readonly say: (text: string) => void,
  ) {}

  /** Another process in place of the one before; rejects if it cannot be started or is not wanted any more. */
  start(): Promise<ChildProcess> {
    return new Promise((resolve, reject) => {
      if (!this.isWanted) {
        reject(new Error("The language server is not wanted any more."));
        return;
      }
      const child = spawn(this.command, this.args, { cwd: homedir(), windowsHide: true });
      this.child = child;
      child.once("error", reject);
      child.once("spawn", () => resolve(child));
      child.once("exit", (code, signal) =>
        this.say(`The language server's process ended: ${signal ?? `code ${code}`}.`),
      );
    });
  }

  /** Ends the process: one that `endsItself` was told to already and gets a moment for it. */
  async end(endsItself: boolean): Promise<void> {
    this.isWanted = false;
    const { child } = this;
    if (!child || (endsItself && (await hasEnded(child, OWN_END_MS)))) {
      return;
    }
    child.kill();
    if (!(await hasEnded(child, SIGNALLED_END_MS))) {
      child.kill("SIGKILL");
      await hasEnded(child, SIGNALLED_END_MS);
    }
  }
}

function hasEnded(child: ChildProcess, limitMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const isOver = (): boolean => child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
    const finish = (): void => {
      clearTimeout(timer);
      child.off("exit", finish);
      resolve(isOver());
    };
    const timer = setTimeout(finish, isOver() ? 0 : limitMs);
    child.once("exit", finish);
  });
}

export type StartResult = "started" | "late" | "given up";

/** Waits for a server's first answer, but no longer than `limitMs`, and not once it is not wanted any more. */
export async function startWithin(start: Promise<void>, limitMs: number, giveUp: AbortSignal): Promise<StartResult> {
  let timer: NodeJS.Timeout | undefined;
  const other = new Promise<StartResult>((resolve) => {
    timer = setTimeout(() => resolve("late"), limitMs);
    giveUp.addEventListener("abort", () => resolve("given up"), { once: true });
    if (giveUp.aborted) {
      resolve("given up");
    }
  });
  try {
    return await Promise.race([other, start.then((): StartResult => "started")]);
  } finally {
    clearTimeout(timer);
    start.catch(() => undefined); // it fails later, when its process is ended, and nobody listens
  }
}
