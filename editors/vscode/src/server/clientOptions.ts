// How the language client is set up: documents, settings, log, and what happens when the server ends.

import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import type * as vscode from "vscode";
import {
  type ClientCapabilities,
  CloseAction,
  ErrorAction,
  type ErrorHandler,
  type FeatureState,
  type LanguageClientOptions,
  type Middleware,
  RevealOutputChannelOn,
  type StaticFeature,
} from "vscode-languageclient/node";
import type { RedactingLog } from "../log";
import { serverSettings } from "./settings";
import type { TokenStore } from "./token";

const SELECTOR = [{ scheme: "file" }, { scheme: "untitled" }, { scheme: "vscode-notebook-cell" }];
const MAX_ERRORS = 3;
const MAX_RESTARTS = 4;
const RESTART_WINDOW_MS = 3 * 60_000;

/** What the options need from their surroundings. */
export interface Surroundings {
  readonly token: string | undefined;
  readonly tokens: TokenStore;
  readonly log: RedactingLog;
  readonly middleware: Middleware;
  /** Lets the server fetch its settings anew. */
  readonly refreshSettings: () => Promise<void>;
  /** Whether the server shall run: one that was ended on purpose is not started again. */
  readonly isWanted: () => boolean;
  /** The server ended; `times` counts the last minutes, and it is started again if `again`. */
  readonly onEnd: (times: number, again: boolean) => void;
}

export function clientOptions({
  token,
  tokens,
  log,
  middleware,
  refreshSettings,
  isWanted,
  onEnd,
}: Surroundings): LanguageClientOptions {
  return {
    documentSelector: SELECTOR,
    errorHandler: restartPolicy(isWanted, onEnd),
    // How it failed is said by whoever started it; nothing is tried again by itself.
    initializationFailedHandler: () => false,
    outputChannel: log,
    traceOutputChannel: log,
    // What else could come on stdout than the protocol is sent to stderr by the server.
    stdioOptions: { stdout: () => undefined, stderr: logLines },
    revealOutputChannelOn: RevealOutputChannelOn.Never,
    initializationOptions: serverSettings(token),
    middleware: {
      ...middleware,
      workspace: {
        ...middleware.workspace,
        // The server fetches its settings: they are never pushed, so that only one place puts them together.
        didChangeConfiguration: refreshSettings,
        configuration: async (params, cancel, next) => {
          const current = await tokens.get();
          const answers = await next(params, cancel);
          const isOurs = (index: number): boolean => params.items[index]?.section === "unmask";
          return Array.isArray(answers)
            ? answers.map((answer, index) => (isOurs(index) ? serverSettings(current) : answer))
            : answers;
        },
      },
    },
  };
}

/** A server that ends is started again, unless it keeps on ending. */
function restartPolicy(isWanted: Surroundings["isWanted"], onEnd: Surroundings["onEnd"]): ErrorHandler {
  const endedMs: number[] = [];
  return {
    error: (_error, _message, count) => ({
      action: (count ?? 0) <= MAX_ERRORS ? ErrorAction.Continue : ErrorAction.Shutdown,
    }),
    closed: () => {
      if (!isWanted()) {
        return { action: CloseAction.DoNotRestart, handled: true };
      }
      endedMs.push(Date.now());
      const recent = endedMs.filter((time) => Date.now() - time < RESTART_WINDOW_MS).length;
      const again = recent <= MAX_RESTARTS;
      onEnd(recent, again);
      return { action: again ? CloseAction.Restart : CloseAction.DoNotRestart, handled: true };
    },
  };
}

/** Copies the server's own log, each line at its level. */
function logLines(stream: Readable, log: vscode.LogOutputChannel): void {
  createInterface({ input: stream }).on("line", (line) => {
    const level = / (DEBUG|INFO|WARNING|ERROR) /.exec(line)?.[1];
    const write =
      level === "ERROR" ? log.error : level === "WARNING" ? log.warn : level === "DEBUG" ? log.debug : log.info;
    write.call(log, line);
  });
}

/** Tells the server that code actions may carry `unmask.client.edit`, which asks for an instruction. */
export class EditPromptFeature implements StaticFeature {
  fillClientCapabilities(capabilities: ClientCapabilities): void {
    const experimental = (capabilities.experimental ?? {}) as Record<string, unknown>;
    capabilities.experimental = { ...experimental, unmask: { editPrompt: true } };
  }

  initialize(): void {}

  getState(): FeatureState {
    return { kind: "static" };
  }

  clear(): void {}
}
