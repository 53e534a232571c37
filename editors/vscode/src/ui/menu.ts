// The menu of the status bar item: what can be done, and why no suggestion came.

import * as vscode from "vscode";
import type { FullStatus, Status } from "../protocol";
import type { Connection } from "../server/connection";
import { explainReason } from "./reasons";
import { lacksToken } from "./statusBar";

interface Entry extends vscode.QuickPickItem {
  readonly run?: string;
}

const separator = (label: string): Entry => ({ label, kind: vscode.QuickPickItemKind.Separator });
const action = (label: string, run: string, description = ""): Entry => ({ label, run, description });

export async function showMenu(server: Connection, shown: Status | undefined): Promise<void> {
  const full = server.isRunning
    ? await server.execute<FullStatus>("unmask.status", {}).catch(() => undefined)
    : undefined;
  const status = full ?? shown;
  const chosen = await vscode.window.showQuickPick(entries(server, status, full), {
    title: status ? `Unmask: ${status.message}` : "Unmask",
    placeHolder: status?.model ? `Model ${status.model}` : "Choose an action",
    matchOnDescription: true,
  });
  if (chosen?.run) {
    await vscode.commands.executeCommand(chosen.run);
  }
}

function entries(server: Connection, status: Status | undefined, full: FullStatus | undefined): Entry[] {
  const running = server.isRunning;
  const toggle = full?.enabled === false ? "$(play) Switch suggestions on" : "$(circle-slash) Switch suggestions off";
  const why = full?.lastReason
    ? [action("$(question) Why did no suggestion come?", "unmask.client.why", explainReason(full.lastReason))]
    : [];
  return [
    ...(lacksToken(status) ? [action("$(key) Set the engine's token…", "unmask.client.setToken")] : []),
    ...(running ? [action(toggle, "unmask.client.toggle")] : []),
    action("$(sparkle) Suggest here", "unmask.client.trigger"),
    action("$(edit) Edit with instruction…", "unmask.client.edit"),
    ...why,
    separator("engine"),
    action("$(package) Choose a model…", "unmask.client.chooseModel", status?.model ?? ""),
    action("$(debug-restart) Restart the engine", "unmask.client.restartEngine"),
    action("$(refresh) Restart the language server", "unmask.client.restart", server.origin ?? ""),
    separator("more"),
    action("$(graph) Statistics", "unmask.client.statistics"),
    action("$(output) Show the log", "unmask.client.showLog"),
    action("$(gear) Settings", "unmask.client.settings"),
  ];
}
