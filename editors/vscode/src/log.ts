// The extension's log, with secrets taken out of whatever is written to it.

import type * as vscode from "vscode";

const HIDDEN = "(hidden)";

/** A log channel that replaces known secrets before anything reaches the real one. */
export class RedactingLog implements vscode.LogOutputChannel {
  private readonly secrets = new Set<string>();

  constructor(private readonly channel: vscode.LogOutputChannel) {}

  /** From now on `secret` is not written any more. Old secrets stay hidden too. */
  keepOut(secret: string | undefined): void {
    if (secret) {
      this.secrets.add(secret);
      this.secrets.add(JSON.stringify(secret).slice(1, -1));
    }
  }

  get name(): string {
    return this.channel.name;
  }

  get logLevel(): vscode.LogLevel {
    return this.channel.logLevel;
  }

  get onDidChangeLogLevel(): vscode.Event<vscode.LogLevel> {
    return this.channel.onDidChangeLogLevel;
  }

  trace(message: string, ...rest: unknown[]): void {
    this.channel.trace(this.clean(message), ...this.cleanAll(rest));
  }

  debug(message: string, ...rest: unknown[]): void {
    this.channel.debug(this.clean(message), ...this.cleanAll(rest));
  }

  info(message: string, ...rest: unknown[]): void {
    this.channel.info(this.clean(message), ...this.cleanAll(rest));
  }

  warn(message: string, ...rest: unknown[]): void {
    this.channel.warn(this.clean(message), ...this.cleanAll(rest));
  }

  error(error: string | Error, ...rest: unknown[]): void {
    this.channel.error(
      this.clean(error instanceof Error ? (error.stack ?? error.message) : error),
      ...this.cleanAll(rest),
    );
  }

  append(value: string): void {
    this.channel.append(this.clean(value));
  }

  appendLine(value: string): void {
    this.channel.appendLine(this.clean(value));
  }

  replace(value: string): void {
    this.channel.replace(this.clean(value));
  }

  clear(): void {
    this.channel.clear();
  }

  show(columnOrPreserve?: vscode.ViewColumn | boolean, preserve?: boolean): void {
    this.channel.show(typeof columnOrPreserve === "boolean" ? columnOrPreserve : preserve);
  }

  hide(): void {
    this.channel.hide();
  }

  dispose(): void {
    this.channel.dispose();
  }

  private cleanAll(values: unknown[]): unknown[] {
    return values.map((value) => {
      const text =
        typeof value === "string"
          ? value
          : value instanceof Error
            ? (value.stack ?? value.message)
            : JSON.stringify(value);
      return this.clean(text ?? String(value));
    });
  }

  private clean(text: string): string {
    let cleaned = text;
    for (const secret of this.secrets) {
      cleaned = cleaned.replaceAll(secret, HIDDEN);
    }
    return cleaned;
  }
}
