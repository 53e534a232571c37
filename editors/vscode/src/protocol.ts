// What goes over the wire between this extension and the language server, beyond standard LSP.

import type { Range, TextEdit } from "vscode-languageclient/node";

export type StatusKind = "Normal" | "Busy" | "Warning" | "Error" | "Inactive";

/** `$/unmask/status`: `reason` is one word for programs, `message` a sentence for people. */
export interface Status {
  readonly kind: StatusKind;
  readonly message: string;
  readonly reason: string;
  readonly model: string;
  readonly latencyMs: number;
}

/** The answer to `unmask.status`. */
export interface FullStatus extends Status {
  readonly lastReason: string;
  readonly reasons: Readonly<Record<string, number>>;
  readonly numSuggestionsKept: number;
  readonly enabled: boolean;
}

export type EditState = "applied" | "ready" | "stale" | "rejected" | "empty" | "incomplete" | "cancelled";

/** The argument of `unmask.edit`. */
export interface EditParams {
  readonly uri: string;
  readonly range: Range;
  readonly instruction: string;
  readonly version: number;
  readonly originalSha256?: string;
  readonly apply: false;
  readonly editId: string;
  /** The id of a ready edit to start from. */
  readonly refine?: string;
}

/** The answer to `unmask.edit` and `unmask.acceptEdit`: `edits[i]` is hunk `i`, in the document's `version`. */
export interface EditAnswer {
  readonly status: EditState;
  readonly message: string;
  readonly editId: string;
  readonly uri: string;
  readonly version: number;
  readonly edits: readonly TextEdit[];
  readonly model?: string;
  readonly numForwards?: number;
  readonly numTokens?: number;
  readonly totalMs?: number;
  readonly notice?: string;
}

/** The answer to `unmask.nextEdit`: a ready edit of one line. */
export interface NextEditAnswer extends EditAnswer {
  readonly line: number;
  readonly instruction: string;
}

export type ScopeKind = "selection" | "definition" | "line" | "insert";

/** The answer to `unmask.editScope`. */
export interface EditScope {
  readonly range: Range;
  readonly kind: ScopeKind;
  readonly name: string;
}

/** `$/unmask/editPreview`: the selection's new text so far; `unsettled` may still change. */
export interface EditPreview {
  readonly editId: string;
  readonly uri: string;
  readonly version: number;
  readonly settled: string;
  readonly unsettled: string;
  readonly done: boolean;
}

/** One entry of the answer to `unmask.listModels`. */
export interface ModelInfo {
  readonly name: string;
  readonly title?: string;
  readonly parameters?: number | string;
  readonly licence: string;
  readonly tasks: readonly string[];
  readonly isDefault: boolean;
  readonly isPresent: boolean;
}

/** The argument of the client's own command `unmask.client.edit`, which code actions of the server carry. */
export interface EditPrompt {
  readonly uri: string;
  readonly range: Range;
  readonly version?: number;
  readonly instruction?: string;
}

export const STATUS_NOTIFICATION = "$/unmask/status";
export const PREVIEW_NOTIFICATION = "$/unmask/editPreview";
export const DID_SHOW = "$/unmask/didShow";
export const DID_PARTIALLY_ACCEPT = "$/unmask/didPartiallyAccept";
export const DID_DISMISS = "$/unmask/didDismiss";
