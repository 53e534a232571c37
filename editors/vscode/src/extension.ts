// Start and end of the extension: what there is, and what is connected to what.

import * as vscode from "vscode";
import { RedactingLog } from "./log";
import { Connection } from "./server/connection";
import { TokenStore } from "./server/token";
import { StatusBar } from "./ui/statusBar";

let connection: Connection | undefined;

export function activate(context: vscode.ExtensionContext): void {
  const log = new RedactingLog(vscode.window.createOutputChannel("Unmask", { log: true }));
  const tokens = new TokenStore(context.secrets);
  const statusBar = new StatusBar("unmask.client.menu");
  const server = new Connection(context.globalStorageUri, tokens, log, {});
  connection = server;
  context.subscriptions.push(log, statusBar, server, server.onStatus((status) => statusBar.show(status)));
  void server.restart();
}

export async function deactivate(): Promise<void> {
  await connection?.stop();
}
