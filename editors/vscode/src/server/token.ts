// The token of a remote engine: kept in the editor's secret storage, never in settings.

import * as vscode from "vscode";

const KEY = "unmask.engine.token";

export class TokenStore {
  constructor(private readonly secrets: vscode.SecretStorage) {}

  /** Fires when the token changed, in this window or another one. */
  onDidChange(listener: () => void): vscode.Disposable {
    return this.secrets.onDidChange((event) => event.key === KEY && listener());
  }

  async get(): Promise<string | undefined> {
    return (await this.secrets.get(KEY)) || undefined;
  }

  /** Asks for a token; an empty one deletes what is kept. */
  async ask(): Promise<void> {
    const url = vscode.workspace.getConfiguration("unmask.engine").get("url", "");
    const token = await vscode.window.showInputBox({
      title: "Unmask: token of the engine",
      prompt: `${url ? `For ${url}. ` : ""}Kept in the editor's secret storage. Leave it empty to delete the token.`,
      password: true,
      ignoreFocusOut: true,
      validateInput: (value) => (/\s/.test(value.trim()) ? "A token has no spaces in it." : undefined),
    });
    if (token === undefined) {
      return;
    }
    if (token.trim()) {
      await this.secrets.store(KEY, token.trim());
    } else {
      await this.secrets.delete(KEY);
    }
  }
}
