// The edits under way, one a document: drawn into every editor that shows it, and following what is typed meanwhile.

import * as vscode from "vscode";
import type { ApplyWorkspaceEditParams } from "vscode-languageclient/node";
import { TextDocumentEdit } from "vscode-languageclient/node";
import type { EditPreview } from "../protocol";
import { EditDecorations } from "./decorations";
import { EditLenses } from "./lenses";
import type { EditSession, Side } from "./session";
import { Zones } from "./zones";

/** Documents that show what an edit would make of a file; the query is the edit's id. */
export const PROPOSED_SCHEME = "unmask-edit";

const MAX_ENDED = 8;
const STALE = "the text was changed since the edit was made";

export class EditSessions implements vscode.Disposable {
  private readonly sessions = new Map<string, EditSession>();
  private readonly previews = new Map<EditSession, EditPreview>();
  /** Ended a moment ago: followed on, because a message may still offer to run them again. */
  private readonly ended: EditSession[] = [];
  private readonly decorations = new EditDecorations();
  private readonly lenses = new EditLenses((document) => this.of(document));
  private readonly changed = new vscode.EventEmitter<EditSession>();
  private readonly subscriptions: vscode.Disposable[];
  readonly zones = new Zones();
  /** Fires when a session came, went, was decided about, or its text changed. */
  readonly onDidChange = this.changed.event;

  constructor() {
    this.subscriptions = [
      vscode.languages.registerCodeLensProvider([{ scheme: "file" }, { scheme: "untitled" }], this.lenses),
      vscode.workspace.onDidChangeTextDocument((event) => this.follow(event)),
      vscode.workspace.onDidCloseTextDocument((document) => this.remove(this.of(document))),
      vscode.window.onDidChangeVisibleTextEditors(() => this.redrawAll()),
      vscode.window.onDidChangeActiveTextEditor(() => this.setContext()),
      this.decorations,
      this.lenses,
      this.zones,
      this.changed,
    ];
  }

  of(document: vscode.TextDocument | undefined): EditSession | undefined {
    return document && this.sessions.get(document.uri.toString());
  }

  /** Which text the active editor shows: lines of one side mean nothing on the other. */
  get activeSide(): Side {
    return vscode.window.activeTextEditor?.document.uri.scheme === PROPOSED_SCHEME ? "proposed" : "original";
  }

  /** The session of the active editor, which may be the proposed side of a diff. */
  get active(): EditSession | undefined {
    const document = vscode.window.activeTextEditor?.document;
    return document?.uri.scheme === PROPOSED_SCHEME
      ? [...this.sessions.values()].find(({ editId }) => editId === document.uri.query)
      : this.of(document);
  }

  /** Begins to show a session, in place of the one that the document had. */
  put(session: EditSession): void {
    this.clear(this.of(session.document));
    this.sessions.set(session.document.uri.toString(), session);
    this.redraw(session);
  }

  /** Ends a session if it is still the one of its document. */
  remove(session: EditSession | undefined): void {
    if (session && this.of(session.document) === session) {
      this.sessions.delete(session.document.uri.toString());
      session.cancellation.cancel();
      this.ended.unshift(session);
      this.ended.splice(MAX_ENDED);
      this.clear(session);
      this.setContext();
      this.lenses.refresh();
      this.changed.fire(session);
    }
  }

  showPreview(preview: EditPreview): void {
    const session = [...this.sessions.values()].find(({ editId }) => editId === preview.editId);
    if (session?.phase !== "running" || preview.done) {
      return; // the last frame is followed by the answer, which is drawn as hunks
    }
    this.previews.set(session, preview);
    this.drawPreview(session);
  }

  /** Highlights lines before an edit of them begins; undefined ends that. */
  highlight(document: vscode.TextDocument, range: vscode.Range | undefined): void {
    for (const editor of editorsOf(document)) {
      this.decorations.showScope(editor, range);
    }
  }

  redraw(session: EditSession): void {
    if (session.phase !== "running") {
      this.previews.delete(session);
    }
    for (const editor of editorsOf(session.document)) {
      this.decorations.clear(editor);
      if (session.phase === "deciding" && !session.isStale) {
        this.decorations.showHunks(editor, session);
      } else if (session.phase === "running") {
        this.decorations.showScope(editor, session.range);
      }
    }
    if (session.phase === "running") {
      this.drawPreview(session);
    } else if (session.phase === "deciding" && !session.isStale) {
      this.zones.showHunks(session);
    } else {
      this.zones.clear(session);
    }
    this.setContext();
    this.lenses.refresh();
    this.changed.fire(session);
  }

  /** The last check before the server's edit reaches a document: its version, and the text that the edit is about. */
  refusal(params: ApplyWorkspaceEditParams): string | undefined {
    for (const change of params.edit.documentChanges ?? []) {
      if (TextDocumentEdit.is(change)) {
        const { uri, version } = change.textDocument;
        const wanted = vscode.Uri.parse(uri).toString();
        const document = vscode.workspace.textDocuments.find((open) => open.uri.toString() === wanted);
        const session = this.of(document);
        const isOtherVersion = document && version !== null && version !== document.version;
        if (isOtherVersion || (session?.phase === "applying" && session.isStale)) {
          return STALE;
        }
      }
    }
    return undefined;
  }

  dispose(): void {
    for (const subscription of this.subscriptions) {
      subscription.dispose();
    }
  }

  private follow({ document, contentChanges }: vscode.TextDocumentChangeEvent): void {
    for (const over of this.ended.filter((each) => each.document === document)) {
      over.follow(contentChanges);
    }
    const session = this.of(document);
    if (session && contentChanges.length > 0) {
      for (let each: EditSession | undefined = session; each; each = each.refined) {
        each.follow(contentChanges); // those that are refined may have to be shown again
      }
      this.redraw(session);
    }
  }

  private redrawAll(): void {
    for (const session of this.sessions.values()) {
      this.redraw(session);
    }
  }

  private drawPreview(session: EditSession): void {
    const preview = this.previews.get(session);
    if (!preview) {
      return;
    }
    if (session.isStale) {
      for (const editor of editorsOf(session.document)) {
        this.decorations.clearPreview(editor);
      }
      this.zones.clearPreview(session);
      return;
    }
    for (const editor of editorsOf(session.document)) {
      this.zones.showSurplus(session, this.decorations.showPreview(editor, session, preview));
    }
  }

  private clear(session: EditSession | undefined): void {
    if (session) {
      this.previews.delete(session);
      for (const editor of editorsOf(session.document)) {
        this.decorations.clear(editor);
      }
      this.zones.clear(session);
    }
  }

  private setContext(): void {
    const session = this.active;
    const deciding = session?.phase === "deciding";
    void vscode.commands.executeCommand("setContext", "unmask.editRunning", session?.phase === "running");
    void vscode.commands.executeCommand("setContext", "unmask.editWaits", deciding);
    void vscode.commands.executeCommand("setContext", "unmask.hunksShown", deciding && !session.isStale);
  }
}

function editorsOf(document: vscode.TextDocument): readonly vscode.TextEditor[] {
  return vscode.window.visibleTextEditors.filter((editor) => editor.document === document);
}
