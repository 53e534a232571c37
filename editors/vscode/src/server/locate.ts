// Finds the command that starts the language server: what the user set, a Python that has it, PATH, our own environment.

import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";
import * as vscode from "vscode";
import type { RedactingLog } from "../log";
import { environmentPython } from "./environment";
import { run } from "./process";

export interface ServerCommand {
  readonly command: string;
  readonly args: readonly string[];
  /** Where it was found, for the log and the menu. */
  readonly origin: string;
}

/** The user named a server that cannot be used; the message says which setting to change. */
export class WrongServerSetting extends Error {}

// -P keeps the working folder out of the import path: a workspace must not be able to replace our modules.
const MODULE_ARGS = ["-P", "-m", "lsp_server"] as const;
const PROBE_TIMEOUT_MS = 20_000;

/** The first way to start the server that works, or undefined if there is none. */
export async function locateServer(storage: vscode.Uri, log: RedactingLog): Promise<ServerCommand | undefined> {
  const settings = vscode.workspace.getConfiguration("unmask.server");
  const command = settings.get<string[]>("command", []);
  if (command.length > 0) {
    return fromSetting(command);
  }
  const python = settings.get<string>("python", "").trim();
  if (python) {
    const missing = await whyNotUsable(python);
    if (missing) {
      throw new WrongServerSetting(`unmask.server.python is ${python}: ${missing}`);
    }
    return { command: python, args: MODULE_ARGS, origin: "unmask.server.python" };
  }
  const interpreter = await selectedInterpreter();
  if (interpreter) {
    const missing = await whyNotUsable(interpreter);
    if (!missing) {
      return { command: interpreter, args: MODULE_ARGS, origin: "the Python interpreter of this workspace" };
    }
    log.info(`The selected Python interpreter ${interpreter} is not used: ${missing}`);
  }
  const onPath = await findOnPath("unmask");
  if (onPath) {
    return { command: onPath, args: ["lsp"], origin: "PATH" };
  }
  const own = environmentPython(storage);
  if ((await isExecutable(own)) && !(await whyNotUsable(own))) {
    return { command: own, args: MODULE_ARGS, origin: "the environment that this extension made" };
  }
  return undefined;
}

async function fromSetting(command: readonly string[]): Promise<ServerCommand> {
  const [program, ...args] = command;
  if (!program || !command.every((part) => typeof part === "string")) {
    throw new WrongServerSetting('unmask.server.command must be a list of words, like ["unmask", "lsp"].');
  }
  const found = isAbsolute(program) ? ((await isExecutable(program)) ? program : undefined) : await findOnPath(program);
  if (!found) {
    throw new WrongServerSetting(
      `unmask.server.command starts with ${program}, which is not a program that can be run.`,
    );
  }
  return { command: found, args, origin: "unmask.server.command" };
}

/** Why a Python cannot run the server; undefined if it can. */
export async function whyNotUsable(python: string): Promise<string | undefined> {
  const probe =
    "import importlib.util as u, sys; sys.exit(0 if u.find_spec('lsp_server') and u.find_spec('pygls') else 3)";
  try {
    const { code, stderr } = await run(python, ["-P", "-c", probe], { timeoutMs: PROBE_TIMEOUT_MS });
    if (code === 0) {
      return undefined;
    }
    return code === 3
      ? "Unmask is not installed in it."
      : `it is older than Python 3.11 or broken. ${lastLine(stderr)}`;
  } catch (error) {
    return `it cannot be run: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** The interpreter that the Python extension uses. Not in a folder that is not trusted: it could name any program. */
async function selectedInterpreter(): Promise<string | undefined> {
  if (!vscode.workspace.isTrusted) {
    return undefined;
  }
  interface PythonApi {
    readonly environments?: { getActiveEnvironmentPath(): { readonly path: string } };
  }
  const extension = vscode.extensions.getExtension<PythonApi>("ms-python.python");
  if (extension) {
    const api = extension.isActive ? extension.exports : await extension.activate();
    const path = api.environments?.getActiveEnvironmentPath().path;
    if (path && isAbsolute(path)) {
      return path;
    }
  }
  const configured = vscode.workspace.getConfiguration("python").get<string>("defaultInterpreterPath", "");
  return isAbsolute(configured) ? configured : undefined;
}

export async function findOnPath(name: string): Promise<string | undefined> {
  // Scripts (.cmd) would need a shell; pip installs programs.
  const ending = process.platform === "win32" && !name.toLowerCase().endsWith(".exe") ? ".exe" : "";
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    const path = join(folder, name + ending);
    if (isAbsolute(path) && (await isExecutable(path))) {
      return path;
    }
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}
