// An edit as a diff: the document beside what it would become, in a document that exists only in memory.

import { basename } from "node:path";
import * as vscode from "vscode";
import type { EditSession } from "./session";
import { type EditSessions, PROPOSED_SCHEME } from "./sessions";

export class EditDiff implements vscode.TextDocumentContentProvider, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<vscode.Uri>();
  private readonly opened = new Map<string, EditSession>();
  private readonly subscriptions: vscode.Disposable[];
  readonly onDidChange = this.changed.event;

  constructor(private readonly sessions: EditSessions) {
    this.subscriptions = [
      vscode.workspace.registerTextDocumentContentProvider(PROPOSED_SCHEME, this),
      sessions.onDidChange((session) => this.refresh(session)),
      vscode.window.tabGroups.onDidChangeTabs(({ closed }) => closed.map((tab) => this.unfold(tab))),
      this.changed,
    ];
  }

  provideTextDocumentContent(uri: vscode.Uri): string {
    const session = this.opened.get(uri.toString());
    return session ? session.proposedText() : "";
  }

  async open(session: EditSession): Promise<void> {
    const uri = proposedUri(session);
    this.opened.set(uri.toString(), session);
    this.changed.fire(uri);
    const title = `${basename(session.document.uri.path)}: edit by Unmask`;
    this.sessions.zones.fold(session, true);
    this.sessions.redraw(session);
    await vscode.commands.executeCommand("vscode.diff", session.document.uri, uri, title);
  }

  dispose(): void {
    for (const subscription of this.subscriptions) {
      subscription.dispose();
    }
  }

  /** After the diff of an edit that still waits was closed, its changes are shown in the text again. */
  private unfold({ input }: vscode.Tab): void {
    const uri = input instanceof vscode.TabInputTextDiff ? input.modified.toString() : "";
    const session = this.opened.get(uri);
    if (session) {
      this.opened.delete(uri);
      this.sessions.zones.fold(session, false);
      this.sessions.redraw(session);
    }
  }

  /** Shows the present decisions; closes the diff of an edit that is over. */
  private refresh(session: EditSession): void {
    const uri = proposedUri(session);
    if (!this.opened.has(uri.toString())) {
      return;
    }
    if (this.sessions.of(session.document) === session && session.phase === "deciding") {
      this.changed.fire(uri);
      return;
    }
    this.opened.delete(uri.toString());
    const tabs = vscode.window.tabGroups.all.flatMap((group) => group.tabs);
    const ours = tabs.filter(
      ({ input }) => input instanceof vscode.TabInputTextDiff && input.modified.toString() === uri.toString(),
    );
    void vscode.window.tabGroups.close(ours);
  }
}

function proposedUri(session: EditSession): vscode.Uri {
  return session.document.uri.with({ scheme: PROPOSED_SCHEME, query: session.editId });
}
