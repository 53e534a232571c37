// The language server's process and the client connected to it, from start to restart to stop.

import * as vscode from "vscode";
import { ExecuteCommandRequest, LanguageClient, type Middleware, State } from "vscode-languageclient/node";
import type { RedactingLog } from "../log";
import { type EditPreview, PREVIEW_NOTIFICATION, STATUS_NOTIFICATION, type Status } from "../protocol";
import { clientOptions, EditPromptFeature } from "./clientOptions";
import { offerEnvironment } from "./environment";
import { locateServer, type ServerCommand, WrongServerSetting } from "./locate";
import { ServerProcess, startWithin } from "./serverProcess";
import type { TokenStore } from "./token";

const STARTING: Status = { kind: "Busy", reason: "starting", message: "Starting.", model: "", latencyMs: 0 };
/** How long a server may take until it answers first: Python on a slow disk needs many seconds. */
const START_LIMIT_MS = 60_000;

/** A client that keeps its notifications to itself once its server is ended on purpose. */
class QuietClient extends LanguageClient {
  isEnding = false;

  override error(message: string, data?: unknown, showNotification: boolean | "force" = true): void {
    super.error(message, data, this.isEnding ? false : showNotification);
  }
}

export class Connection implements vscode.Disposable {
  private client: QuietClient | undefined;
  private process: ServerProcess | undefined;
  /** Ends the waiting for a server that is starting, once somebody wants another one or none. */
  private start = new AbortController();
  private listeners: vscode.Disposable[] = [];
  private server: ServerCommand | undefined;
  private turn: Promise<unknown> = Promise.resolve();
  private readonly statusEmitter = new vscode.EventEmitter<Status>();
  private readonly previewEmitter = new vscode.EventEmitter<EditPreview>();

  readonly onStatus = this.statusEmitter.event;
  readonly onPreview = this.previewEmitter.event;

  constructor(
    private readonly extension: vscode.Uri,
    private readonly storage: vscode.Uri,
    private readonly tokens: TokenStore,
    private readonly log: RedactingLog,
    private readonly middleware: Middleware,
  ) {}

  /** How the running server was found; undefined while none runs. */
  get origin(): string | undefined {
    return this.client && this.server ? `${this.server.command} (${this.server.origin})` : undefined;
  }

  get isRunning(): boolean {
    return this.client?.state === State.Running;
  }

  /**
   * Starts the server, or another one in place of the present one. Problems are shown, never thrown.
   *
   * A server that is still starting is not waited for: it may never answer.
   */
  restart(): Promise<void> {
    const { signal } = this.giveUpStart();
    return this.inTurn(async () => {
      await this.stopClient();
      if (!signal.aborted) {
        await this.startClient(signal);
      }
    });
  }

  stop(): Promise<void> {
    this.giveUpStart();
    return this.inTurn(() => this.stopClient());
  }

  /** Lets the server fetch its settings anew, with the present token. */
  async refreshSettings(): Promise<void> {
    this.log.keepOut(await this.tokens.get());
    if (this.isRunning) {
      await this.client?.sendNotification("workspace/didChangeConfiguration", { settings: null });
    }
  }

  /** Whether the running server knows a command: older servers lack some. */
  knows(command: string): boolean {
    return this.client?.initializeResult?.capabilities.executeCommandProvider?.commands.includes(command) ?? false;
  }

  /**
   * Runs a command of the server. Rejects with a message for the user.
   *
   * A progress token of our own keeps the server from opening another progress display.
   */
  async execute<T>(command: string, argument: object, token?: vscode.CancellationToken): Promise<T> {
    const client = this.client;
    if (!client || client.state !== State.Running) {
      throw new Error("The Unmask language server is not running. The status bar item says why.");
    }
    const params = { command, arguments: [argument], workDoneToken: `${command}-${crypto.randomUUID()}` };
    return (await client.sendRequest(ExecuteCommandRequest.type, params, token)) as T;
  }

  /** Sends a notification if a server is there; nobody waits for it. */
  notify(method: string, params: object): void {
    if (this.isRunning) {
      this.client?.sendNotification(method, params).catch(() => this.log.debug(`${method} was not sent`));
    }
  }

  toUri(uri: vscode.Uri): string {
    return this.client?.code2ProtocolConverter.asUri(uri) ?? uri.toString();
  }

  dispose(): void {
    void this.stop();
    this.statusEmitter.dispose();
    this.previewEmitter.dispose();
    for (const listener of this.listeners) {
      listener.dispose();
    }
  }

  private giveUpStart(): AbortController {
    this.start.abort();
    this.start = new AbortController();
    return this.start;
  }

  private inTurn(work: () => Promise<void>): Promise<void> {
    const next = this.turn.then(work, work);
    this.turn = next.catch(() => undefined);
    return next;
  }

  private async startClient(giveUp: AbortSignal): Promise<void> {
    this.statusEmitter.fire(STARTING);
    const server = await this.findServer();
    const token = await this.tokens.get();
    if (!server || giveUp.aborted) {
      return;
    }
    this.server = server;
    this.log.keepOut(token);
    this.log.info(`Language server: ${server.command} (${server.origin})`);
    const process = new ServerProcess(server.command, server.args, (text) => this.log.info(text));
    const client: QuietClient = new QuietClient(
      "unmask",
      "Unmask",
      () => process.start(),
      clientOptions({
        token,
        tokens: this.tokens,
        log: this.log,
        middleware: this.middleware,
        refreshSettings: () => this.refreshSettings(),
        isWanted: () => !client.isEnding,
        onEnd: (times, again) => this.reportEnd(times, again),
      }),
    );
    client.registerFeature(new EditPromptFeature());
    this.listeners = [
      client.onNotification(STATUS_NOTIFICATION, (status: Status) => this.statusEmitter.fire(status)),
      client.onNotification(PREVIEW_NOTIFICATION, (preview: EditPreview) => this.previewEmitter.fire(preview)),
    ];
    this.client = client;
    this.process = process;
    try {
      if ((await startWithin(client.start(), START_LIMIT_MS, giveUp)) === "late") {
        await this.stopClient();
        const limit = `within ${START_LIMIT_MS / 1000} s`;
        this.fail("start_failed", `The language server did not answer ${limit} and was ended: ${server.command}.`);
      }
    } catch (error) {
      this.log.error(error instanceof Error ? error : String(error));
      this.fail("start_failed", `The language server did not start: ${server.command}. The log says why.`);
    }
  }

  /** The server's command; if there is none, what to do about it is asked once and the status says it. */
  private async findServer(): Promise<ServerCommand | undefined> {
    try {
      const found = await locateServer(this.storage, this.log);
      if (found) {
        return found;
      }
    } catch (error) {
      if (!(error instanceof WrongServerSetting)) {
        throw error;
      }
      this.fail("server_setting", error.message);
      void vscode.window.showErrorMessage(error.message, "Open settings").then((answer) => {
        return answer && vscode.commands.executeCommand("workbench.action.openSettings", "unmask.server");
      });
      return undefined;
    }
    this.fail(
      "no_server",
      "No language server was found. Restart Unmask to install one, or set unmask.server.command.",
    );
    void this.offerInstallation();
    return undefined;
  }

  private async offerInstallation(): Promise<void> {
    if (await offerEnvironment(this.extension, this.storage, this.log)) {
      await this.restart();
    }
  }

  private async stopClient(): Promise<void> {
    const { client, process } = this;
    this.client = undefined;
    this.process = undefined;
    if (client) {
      client.isEnding = true;
      // One that does not run cannot be told to end: its process is ended.
      const isTold = client.state === State.Running && (await this.tellToEnd(client));
      await process?.end(isTold);
      await client.dispose().catch(() => undefined);
    }
    for (const listener of this.listeners.splice(0)) {
      listener.dispose();
    }
  }

  private async tellToEnd(client: LanguageClient): Promise<boolean> {
    try {
      await client.stop();
      return true;
    } catch {
      this.log.info("The language server had to be ended.");
      return false;
    }
  }

  private reportEnd(times: number, again: boolean): void {
    if (again) {
      this.fail("server_stopped", "The language server ended and is started again. The log says why it ended.");
      return;
    }
    const message = `The language server ended ${times} times. The log says why; the menu can start it again.`;
    this.fail("server_stopped", message);
    void vscode.window.showErrorMessage(`Unmask: ${message}`, "Show log").then((answer) => answer && this.log.show());
  }

  private fail(reason: string, message: string): void {
    this.statusEmitter.fire({ kind: "Error", reason, message, model: "", latencyMs: 0 });
  }
}
