// The settings as the language server wants them: our own left out, the token of the secret storage put in.

import * as vscode from "vscode";

/** Sections under `unmask` that the extension keeps for itself. */
const CLIENT_ONLY = ["server", "trace"] as const;

type Tree = { [key: string]: unknown };

/** A plain copy of the `unmask` section for the server; `token` is only ever in this copy. */
export function serverSettings(token: string | undefined): Tree {
  const all = JSON.parse(JSON.stringify(vscode.workspace.getConfiguration().get("unmask") ?? {})) as Tree;
  for (const key of CLIENT_ONLY) {
    delete all[key];
  }
  return token ? { ...all, engine: withToken(all["engine"], token) } : all;
}

/** The token replaces a token file: the server wants one of them, and what was given last through us counts. */
function withToken(engine: unknown, token: string): Tree {
  const { tokenFile: _, ...rest } = (engine ?? {}) as Tree;
  return { ...rest, token };
}
