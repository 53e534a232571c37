// The extension's commands. Those of the server (`unmask.edit`, `unmask.toggle`, ...) are registered by the language client.

import * as vscode from "vscode";
import type { EditDecider } from "./edit/decider";
import type { EditDiff } from "./edit/diff";
import type { EditRunner } from "./edit/runner";
import type { EditSession } from "./edit/session";
import type { EditSessions } from "./edit/sessions";
import type { RedactingLog } from "./log";
import type { EditPrompt } from "./protocol";
import type { Connection } from "./server/connection";
import type { TokenStore } from "./server/token";
import { showMenu } from "./ui/menu";
import { chooseModel } from "./ui/models";
import { type Statistics, showWhy } from "./ui/statistics";
import type { StatusBar } from "./ui/statusBar";

export interface Parts {
  readonly server: Connection;
  readonly statusBar: StatusBar;
  readonly tokens: TokenStore;
  readonly log: RedactingLog;
  readonly sessions: EditSessions;
  readonly runner: EditRunner;
  readonly decider: EditDecider;
  readonly diff: EditDiff;
  readonly statistics: Statistics;
}

type Handler = (...args: never[]) => unknown;

export function registerCommands(parts: Parts): vscode.Disposable[] {
  const handlers = { ...serverCommands(parts), ...suggestionCommands(), ...editCommands(parts) };
  return Object.entries<Handler>(handlers).map(([name, handler]) =>
    vscode.commands.registerCommand(`unmask.client.${name}`, async (...args: never[]) => {
      try {
        return await handler(...args);
      } catch (error) {
        void vscode.window.showErrorMessage(`Unmask: ${error instanceof Error ? error.message : String(error)}`);
        return undefined;
      }
    }),
  );
}

function serverCommands({ server, statusBar, tokens, log, statistics: page }: Parts): Record<string, Handler> {
  return {
    menu: () => showMenu(server, statusBar.status),
    toggle: () => server.execute("unmask.toggle", {}),
    chooseModel: () => chooseModel(server),
    restart: () => server.restart(),
    restartEngine: () => server.execute("unmask.restartEngine", {}),
    setToken: () => tokens.ask(),
    showLog: () => log.show(),
    statistics: () => page.show(),
    why: () => showWhy(server, page),
    settings: () => vscode.commands.executeCommand("workbench.action.openSettings", "@ext:unmask.unmask"),
    walkthrough: () => vscode.commands.executeCommand("workbench.action.openWalkthrough", "unmask.unmask#unmask.start"),
  };
}

/** The editor's own commands for ghost text, under names that can be found in the palette. */
function suggestionCommands(): Record<string, Handler> {
  const forward = (command: string) => () => vscode.commands.executeCommand(command);
  return {
    trigger: forward("editor.action.inlineSuggest.trigger"),
    acceptWord: forward("editor.action.inlineSuggest.acceptNextWord"),
    acceptLine: forward("editor.action.inlineSuggest.acceptNextLine"),
    nextSuggestion: forward("editor.action.inlineSuggest.showNext"),
    previousSuggestion: forward("editor.action.inlineSuggest.showPrevious"),
  };
}

function editCommands({ sessions, runner, decider, diff }: Parts): Record<string, Handler> {
  const waiting = (work: (session: EditSession) => unknown) => () => {
    const session = sessions.active;
    return session?.phase === "deciding" ? work(session) : undefined;
  };
  return {
    edit: (request?: EditPrompt) => runner.start(isPrompt(request) ? request : undefined),
    cancelEdit: () => sessions.active?.cancellation.cancel(),
    acceptHunk: (thread?: unknown) => decider.decide("accepted", thread),
    rejectHunk: (thread?: unknown) => decider.decide("rejected", thread),
    acceptAll: () => decider.acceptAll(),
    rejectAll: () => decider.rejectAll(),
    nextHunk: () => decider.move(1),
    previousHunk: () => decider.move(-1),
    rerun: waiting((session) => runner.rerun(session)),
    refine: waiting((session) => runner.refine(session)),
    diff: waiting((session) => diff.open(session)),
  };
}

/** Menus hand over what they stand on; only a code action brings a place and perhaps an instruction. */
function isPrompt(value: unknown): value is EditPrompt {
  return (
    typeof value === "object" && value !== null && "uri" in value && "range" in value && typeof value.uri === "string"
  );
}
