// Ghost text: answers from what is already shown while the user types through it, and tells the server what became of it.
//
// The stable API of the editor has no events for that, so it is inferred from the text: a longer piece of a suggestion
// that appears at once was accepted; a suggestion that was visible for a while and no longer fits was dismissed.

import * as vscode from "vscode";
import { DID_DISMISS, DID_PARTIALLY_ACCEPT, DID_SHOW } from "../protocol";
import { type Given, type Rest, typedThrough } from "./typedThrough";

const SEEN_AFTER_MS = 300;

/** The rest of the language client's middleware: asks the server. */
type Next = (
  document: vscode.TextDocument,
  position: vscode.Position,
  context: vscode.InlineCompletionContext,
  token: vscode.CancellationToken,
) => vscode.ProviderResult<vscode.InlineCompletionItem[] | vscode.InlineCompletionList>;
type Notify = (method: string, params: object) => void;
type Items = vscode.InlineCompletionItem[];

interface Kept extends Given {
  readonly document: vscode.TextDocument;
  readonly id: string | undefined;
  readonly command: vscode.Command | undefined;
  taken: number;
  /** How much was there when the server was last told. */
  told: number;
  seen: boolean;
  timer: NodeJS.Timeout | undefined;
}

export class Suggestions implements vscode.Disposable {
  private kept: Kept | undefined;
  private readonly subscriptions: vscode.Disposable[];
  private readonly answered = new vscode.EventEmitter<void>();
  /** Fires when the server answered a request, with or without a suggestion. */
  readonly onDidAnswer = this.answered.event;

  constructor(private readonly notify: Notify) {
    this.subscriptions = [
      vscode.workspace.onDidChangeTextDocument((event) => this.follow(event)),
      vscode.window.onDidChangeActiveTextEditor(() => this.drop()),
      vscode.window.onDidChangeTextEditorSelection((event) => this.checkCursor(event)),
      this.answered,
    ];
  }

  /** The language client's middleware for inline completion. */
  readonly provide = async (
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
    token: vscode.CancellationToken,
    next: Next,
  ): Promise<Items | undefined> => {
    const isTyping =
      context.triggerKind === vscode.InlineCompletionTriggerKind.Automatic && !context.selectedCompletionInfo;
    const rest = isTyping ? this.restAt(document, position) : undefined;
    if (rest && this.kept) {
      return [toItem(document, rest, this.kept.command)];
    }
    const answer = await next(document, position, context, token);
    this.answered.fire();
    if (token.isCancellationRequested) {
      return undefined;
    }
    const items = [...(Array.isArray(answer) ? answer : (answer?.items ?? []))];
    const [first] = items;
    if (first && !context.selectedCompletionInfo) {
      this.keep(document, position, first);
    }
    return items;
  };

  dispose(): void {
    this.forget();
    for (const subscription of this.subscriptions) {
      subscription.dispose();
    }
  }

  private keep(document: vscode.TextDocument, position: vscode.Position, item: vscode.InlineCompletionItem): void {
    if (typeof item.insertText !== "string") {
      return;
    }
    this.drop();
    const range = item.range ?? new vscode.Range(position, position);
    const argument = item.command?.arguments?.[0] as { readonly id?: unknown } | undefined;
    const kept: Kept = {
      document,
      text: document.getText(),
      start: document.offsetAt(range.start),
      end: document.offsetAt(range.end),
      insertText: item.insertText,
      id: typeof argument?.id === "string" ? argument.id : undefined,
      command: item.command,
      taken: 0,
      told: 0,
      seen: false,
      timer: undefined,
    };
    kept.timer = setTimeout(() => this.see(kept), SEEN_AFTER_MS);
    this.kept = kept;
  }

  private restAt(document: vscode.TextDocument, position: vscode.Position): Rest | undefined {
    return this.kept?.document === document
      ? typedThrough(this.kept, document.getText(), document.offsetAt(position))
      : undefined;
  }

  private see(kept: Kept): void {
    const editor = vscode.window.activeTextEditor;
    if (
      this.kept === kept &&
      editor?.document === kept.document &&
      this.restAt(kept.document, editor.selection.active)
    ) {
      kept.seen = true;
      this.tell(DID_SHOW, kept, {});
    }
  }

  private follow({ document, contentChanges }: vscode.TextDocumentChangeEvent): void {
    const kept = this.kept;
    if (!kept || kept.document !== document || contentChanges.length === 0) {
      return;
    }
    const text = document.getText();
    const longest = commonLength(kept, text);
    const grown = longest - kept.taken;
    if (grown <= 0) {
      this.drop();
      return;
    }
    kept.taken = longest;
    if (longest === kept.insertText.length) {
      this.forget(); // all of it: accepted, or typed to its end
    } else if (grown > 1 && isPiece(contentChanges)) {
      kept.told = longest;
      this.tell(DID_PARTIALLY_ACCEPT, kept, { acceptedLength: longest });
    }
  }

  /** A cursor that leaves the suggestion's place hides it. */
  private checkCursor({ textEditor, selections }: vscode.TextEditorSelectionChangeEvent): void {
    const kept = this.kept;
    const cursor = selections[0]?.active;
    if (kept && cursor && textEditor.document === kept.document) {
      const offset = kept.document.offsetAt(cursor);
      if (offset < kept.start || offset > kept.start + Math.max(kept.taken, 0) + (kept.end - kept.start)) {
        this.drop();
      }
    }
  }

  /** Forgets a suggestion that no longer fits; one that was seen and not taken up was dismissed. */
  private drop(): void {
    const kept = this.kept;
    if (kept?.seen && kept.told === 0 && kept.taken === 0) {
      this.tell(DID_DISMISS, kept, {});
    }
    this.forget();
  }

  private forget(): void {
    clearTimeout(this.kept?.timer);
    this.kept = undefined;
  }

  private tell(method: string, kept: Kept, more: object): void {
    if (kept.id !== undefined) {
      this.notify(method, { id: kept.id, ...more });
    }
  }
}

function toItem(
  document: vscode.TextDocument,
  rest: Rest,
  command: vscode.Command | undefined,
): vscode.InlineCompletionItem {
  const range = new vscode.Range(document.positionAt(rest.start), document.positionAt(rest.end));
  return new vscode.InlineCompletionItem(rest.insertText, range, command);
}

/** How much of the suggestion stands at its place. */
function commonLength(kept: Kept, text: string): number {
  if (!text.startsWith(kept.text.slice(0, kept.start)) || !text.endsWith(kept.text.slice(kept.end))) {
    return -1;
  }
  const there = text.slice(kept.start, text.length - (kept.text.length - kept.end));
  let length = 0;
  while (length < there.length && there[length] === kept.insertText[length]) {
    length += 1;
  }
  return length;
}

/** Whether a change inserted a piece of text at once, and not one key with the closer that the editor added. */
function isPiece(changes: readonly vscode.TextDocumentContentChangeEvent[]): boolean {
  return changes.some(
    ({ text }) => text.length > 1 && !/^[([{"'`<][)\]}"'`>]$/.test(text) && !/^\r?\n[ \t]*$/.test(text),
  );
}
