// Start and end of the extension: what there is, and what is connected to what.

import * as vscode from "vscode";
import { registerCommands } from "./commands";
import { EditDecider } from "./edit/decider";
import { EditDiff } from "./edit/diff";
import { InstructionPrompt } from "./edit/instruction";
import { NextEdits } from "./edit/nextEdits";
import { EditRunner } from "./edit/runner";
import { EditSessions } from "./edit/sessions";
import { Suggestions } from "./inline/suggestions";
import { RedactingLog } from "./log";
import type { FullStatus } from "./protocol";
import { Connection } from "./server/connection";
import { TokenStore } from "./server/token";
import { Statistics } from "./ui/statistics";
import { lacksToken, StatusBar } from "./ui/statusBar";

const LATENCY_INTERVAL_MS = 2000;

let connection: Connection | undefined;

export function activate(context: vscode.ExtensionContext): void {
  const log = new RedactingLog(vscode.window.createOutputChannel("Unmask", { log: true }));
  const tokens = new TokenStore(context.secrets);
  const statusBar = new StatusBar("unmask.client.menu");
  const sessions = new EditSessions();
  const suggestions = new Suggestions((method, params) => server.notify(method, params));
  const server: Connection = new Connection(context.extensionUri, context.globalStorageUri, tokens, log, {
    provideInlineCompletionItems: suggestions.provide,
    workspace: {
      handleApplyEdit: (params, next) => {
        const failureReason = sessions.refusal(params);
        return failureReason ? { applied: false, failureReason } : next(params, NEVER);
      },
    },
  });
  connection = server;
  const runner = new EditRunner(server, sessions, new InstructionPrompt(context.globalState));
  const decider = new EditDecider(server, sessions, runner);
  const nextEdits = new NextEdits(server, sessions, runner);
  const diff = new EditDiff(sessions);
  const statistics = new Statistics(server);
  context.subscriptions.push(
    log,
    statusBar,
    sessions,
    suggestions,
    server,
    nextEdits,
    diff,
    statistics,
    server.onStatus((status) => {
      if (lacksToken(status) && !lacksToken(statusBar.status)) {
        void offerToken(tokens, status.reason);
      }
      statusBar.show(status);
      void vscode.commands.executeCommand("setContext", "unmask.serverRunning", server.isRunning);
      void vscode.commands.executeCommand("setContext", "unmask.engineReady", status.kind === "Normal");
    }),
    server.onPreview((preview) => sessions.showPreview(preview)),
    suggestions.onDidAnswer(throttled(LATENCY_INTERVAL_MS, () => refreshLatency(server, statusBar))),
    tokens.onDidChange(() => void server.refreshSettings()),
    vscode.workspace.onDidChangeConfiguration(
      (event) => event.affectsConfiguration("unmask.server") && void server.restart(),
    ),
    ...registerCommands({ server, statusBar, tokens, log, sessions, runner, decider, diff, statistics }),
  );
  void server.restart();
}

export async function deactivate(): Promise<void> {
  await connection?.stop();
}

const NEVER = new vscode.CancellationTokenSource().token;

/** The server sends its status when it changes; the latency in the tooltip is fetched now and then. */
async function refreshLatency(server: Connection, statusBar: StatusBar): Promise<void> {
  const status = await server.execute<FullStatus>("unmask.status", {}).catch(() => undefined);
  if (status) {
    statusBar.show(status);
  }
}

/** A missing or wrong token is the one state that only the user can end: it is said once, with the way out. */
async function offerToken(tokens: TokenStore, reason: string): Promise<void> {
  const url = vscode.workspace.getConfiguration("unmask.engine").get("url", "");
  const what = reason === "unauthorized" ? "does not accept the token" : "needs a token";
  const set = "Set token";
  const answer = await vscode.window.showWarningMessage(`Unmask: the engine${url ? ` at ${url}` : ""} ${what}.`, set);
  if (answer === set) {
    await tokens.ask();
  }
}

function throttled(intervalMs: number, work: () => Promise<void>): () => void {
  let lastMs = 0;
  return () => {
    if (Date.now() - lastMs >= intervalMs) {
      lastMs = Date.now();
      void work();
    }
  };
}
