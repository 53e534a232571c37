// Tokens of remote engines: kept in the editor's secret storage, never in settings, each for the server it was given for.

import * as vscode from "vscode";

const PREFIX = "unmask.engine.token:";

export class TokenStore {
  constructor(private readonly secrets: vscode.SecretStorage) {}

  /** Fires when a token changed, in this window or another one. */
  onDidChange(listener: () => void): vscode.Disposable {
    return this.secrets.onDidChange((event) => event.key.startsWith(PREFIX) && listener());
  }

  /** The token for the engine of the settings: another server never sees it. A local engine needs none. */
  async get(): Promise<string | undefined> {
    const origin = engineOrigin();
    return origin ? (await this.secrets.get(PREFIX + origin)) || undefined : undefined;
  }

  /** Asks for a token; an empty one deletes what is kept. */
  async ask(): Promise<void> {
    const origin = engineOrigin();
    if (!origin) {
      await explainNoUrl();
      return;
    }
    const token = await vscode.window.showInputBox({
      title: "Unmask: token of the engine",
      prompt: `For ${origin}. Kept in the editor's secret storage. Leave it empty to delete the token.`,
      password: true,
      ignoreFocusOut: true,
      validateInput: (value) => (/\s/.test(value.trim()) ? "A token has no spaces in it." : undefined),
    });
    if (token === undefined) {
      return;
    }
    if (token.trim()) {
      await this.secrets.store(PREFIX + origin, token.trim());
    } else {
      await this.secrets.delete(PREFIX + origin);
    }
  }
}

/** Scheme, host and port of the engine in the settings; empty for a local one or if the URL is none. */
function engineOrigin(): string {
  const url = vscode.workspace.getConfiguration("unmask.engine").get("url", "");
  return URL.canParse(url) ? new URL(url).origin : "";
}

async function explainNoUrl(): Promise<void> {
  const settings = "Open settings";
  const answer = await vscode.window.showInformationMessage(
    "Unmask: a token belongs to a remote engine. Set unmask.engine.url first; the local engine needs none.",
    settings,
  );
  if (answer === settings) {
    await vscode.commands.executeCommand("workbench.action.openSettings", "unmask.engine.url");
  }
}
