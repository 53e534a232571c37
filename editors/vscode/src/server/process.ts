// Runs short programs and collects what they print.

import { spawn } from "node:child_process";
import { homedir } from "node:os";

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  readonly onOutput?: (text: string) => void;
}

/**
 * Runs a program without a shell. The working folder is the user's home: a folder of the workspace could hold modules
 * that Python would import instead of the installed ones.
 *
 * Rejects when the program cannot be started, takes longer than `timeoutMs`, or `signal` fires.
 */
export function run(command: string, args: readonly string[], options: RunOptions): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: homedir(),
      stdio: ["ignore", "pipe", "pipe"],
      windowsHide: true,
      ...(options.signal && { signal: options.signal }),
    });
    let stdout = "";
    let stderr = "";
    const timer = setTimeout(() => {
      child.kill();
      reject(new Error(`${command} did not end within ${Math.round(options.timeoutMs / 1000)} s`));
    }, options.timeoutMs);
    child.stdout.on("data", (data: Buffer) => {
      stdout += data.toString();
      options.onOutput?.(data.toString());
    });
    child.stderr.on("data", (data: Buffer) => {
      stderr += data.toString();
      options.onOutput?.(data.toString());
    });
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code, stdout, stderr });
    });
  });
}
