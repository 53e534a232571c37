// An isolated Python environment in the extension's own folder, for users who have not installed the server.

import { readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import * as vscode from "vscode";
import type { RedactingLog } from "../log";
import { findOnPath } from "./locate";
import { run } from "./process";

const INSTALL_TIMEOUT_MS = 60 * 60_000;
const PYTHONS = process.platform === "win32" ? ["py", "python"] : ["python3.13", "python3.12", "python3.11", "python3"];

/** Where the environment's interpreter is, or would be. */
export function environmentPython(storage: vscode.Uri): string {
  const folder = join(storage.fsPath, "environment");
  return process.platform === "win32" ? join(folder, "Scripts", "python.exe") : join(folder, "bin", "python");
}

/**
 * What is installed: the setting, or else the wheel in the extension's folder, with the engine's packages where the
 * engine is to run here. Undefined if the extension was packaged without a wheel.
 */
async function findPackage(extension: vscode.Uri): Promise<string | undefined> {
  const wanted = vscode.workspace.getConfiguration("unmask.server").get("package", "");
  if (wanted) {
    return wanted;
  }
  const folder = join(extension.fsPath, "server");
  const files = await readdir(folder).catch(() => []);
  const wheel = files.find((name) => name.endsWith(".whl"));
  const engine = vscode.workspace.getConfiguration("unmask.engine");
  const isRemote = engine.get("url", "") !== "" && engine.get<string>("fallback", "") !== "local";
  return wheel && `${join(folder, wheel)}${isRemote ? "" : "[engine]"}`;
}

/**
 * Asks, then makes the environment and installs the server into it. The result is whether it is there now.
 *
 * An environment that was not finished is removed, so that a failed installation is never taken for a server.
 */
export async function offerEnvironment(
  extension: vscode.Uri,
  storage: vscode.Uri,
  log: RedactingLog,
): Promise<boolean> {
  const packageName = await findPackage(extension);
  if (!packageName) {
    void vscode.window.showErrorMessage(
      "Unmask needs its language server, and this extension was packaged without it: set unmask.server.package.",
    );
    return false;
  }
  const create = "Create environment";
  const settings = "Open settings";
  const answer = await vscode.window.showInformationMessage(
    "Unmask needs its language server, and none was found. It can be installed into an environment of its own: " +
      `\`pip install ${basename(packageName)}\`, which downloads up to a few gigabytes with the engine.`,
    create,
    settings,
  );
  if (answer === settings) {
    await vscode.commands.executeCommand("workbench.action.openSettings", "unmask.server");
  }
  return answer === create && createEnvironment(storage, packageName, log);
}

async function createEnvironment(storage: vscode.Uri, packageName: string, log: RedactingLog): Promise<boolean> {
  const python = await findPython();
  if (!python) {
    void vscode.window.showErrorMessage(
      "Unmask needs Python 3.11 to 3.13, and none is on PATH. Install one and try again.",
    );
    return false;
  }
  const folder = join(storage.fsPath, "environment");
  const options = { location: vscode.ProgressLocation.Notification, title: "Unmask", cancellable: true };
  return vscode.window.withProgress(options, async (progress, cancelled) => {
    const abort = new AbortController();
    cancelled.onCancellationRequested(() => abort.abort());
    const step = async (message: string, command: string, args: readonly string[]): Promise<void> => {
      progress.report({ message });
      log.info(`${command} ${args.join(" ")}`);
      const onOutput = (text: string): void => log.append(text);
      const { code } = await run(command, args, { timeoutMs: INSTALL_TIMEOUT_MS, signal: abort.signal, onOutput });
      if (code !== 0) {
        throw new Error(`${command} ${args.slice(0, 3).join(" ")} ended with ${code}`);
      }
    };
    try {
      await vscode.workspace.fs.createDirectory(storage);
      await step("creating the environment", python, ["-m", "venv", "--clear", folder]);
      await step(`installing ${basename(packageName)}`, environmentPython(storage), [
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        packageName,
      ]);
      return true;
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      if (!abort.signal.aborted) {
        log.error(error instanceof Error ? error : String(error));
        void reportFailure(error, log);
      }
      return false;
    }
  });
}

async function reportFailure(error: unknown, log: RedactingLog): Promise<void> {
  const text = error instanceof Error ? error.message : String(error);
  const showLog = "Show log";
  if ((await vscode.window.showErrorMessage(`Unmask could not be installed: ${text}.`, showLog)) === showLog) {
    log.show();
  }
}

/** A Python of a version that the server runs on. */
async function findPython(): Promise<string | undefined> {
  for (const name of PYTHONS) {
    const path = await findOnPath(name);
    if (!path) {
      continue;
    }
    const check = "import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))";
    const finished = await run(path, ["-c", check], { timeoutMs: 20_000 }).catch(() => undefined);
    if (finished?.code === 0) {
      return path;
    }
  }
  return undefined;
}
