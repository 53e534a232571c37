// The language server's process and the client connected to it, from start to restart to stop.

import { homedir } from "node:os";
import * as vscode from "vscode";
import { ExecuteCommandRequest, LanguageClient, type Middleware, State } from "vscode-languageclient/node";
import type { RedactingLog } from "../log";
import { type EditPreview, PREVIEW_NOTIFICATION, STATUS_NOTIFICATION, type Status } from "../protocol";
import { clientOptions, EditPromptFeature } from "./clientOptions";
import { offerEnvironment } from "./environment";
import { locateServer, type ServerCommand, WrongServerSetting } from "./locate";
import type { TokenStore } from "./token";

const STARTING: Status = { kind: "Busy", reason: "starting", message: "Starting.", model: "", latencyMs: 0 };

export class Connection implements vscode.Disposable {
  private client: LanguageClient | undefined;
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

  /** Starts the server, or another one in place of the present one. Problems are shown, never thrown. */
  restart(): Promise<void> {
    return this.inTurn(async () => {
      await this.stopClient();
      await this.startClient();
    });
  }

  stop(): Promise<void> {
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
    this.statusEmitter.dispose();
    this.previewEmitter.dispose();
    for (const listener of this.listeners) {
      listener.dispose();
    }
  }

  private inTurn(work: () => Promise<void>): Promise<void> {
    const next = this.turn.then(work, work);
    this.turn = next.catch(() => undefined);
    return next;
  }

  private async startClient(): Promise<void> {
    this.statusEmitter.fire(STARTING);
    const server = await this.findServer();
    if (!server) {
      return;
    }
    this.server = server;
    const token = await this.tokens.get();
    this.log.keepOut(token);
    this.log.info(`Language server: ${server.command} (${server.origin})`);
    const options = { cwd: homedir() };
    const client = new LanguageClient(
      "unmask",
      "Unmask",
      { command: server.command, args: [...server.args], options },
      clientOptions({
        token,
        tokens: this.tokens,
        log: this.log,
        middleware: this.middleware,
        refreshSettings: () => this.refreshSettings(),
        onEnd: (times, again) => this.reportEnd(times, again),
      }),
    );
    client.registerFeature(new EditPromptFeature());
    this.listeners = [
      client.onNotification(STATUS_NOTIFICATION, (status: Status) => this.statusEmitter.fire(status)),
      client.onNotification(PREVIEW_NOTIFICATION, (preview: EditPreview) => this.previewEmitter.fire(preview)),
    ];
    this.client = client;
    try {
      await client.start();
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
    const client = this.client;
    this.client = undefined;
    if (client) {
      if (client.state === State.Running) {
        await client.stop().catch(() => this.log.info("The language server had to be ended."));
      }
      await client.dispose().catch(() => undefined);
    }
    for (const listener of this.listeners.splice(0)) {
      listener.dispose();
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
