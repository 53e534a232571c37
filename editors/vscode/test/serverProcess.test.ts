import assert from "node:assert/strict";
import { test } from "node:test";
import { ServerProcess, startWithin } from "../src/server/serverProcess";

const NEVER = new Promise<void>(() => undefined);

function shell(script: string): ServerProcess {
  return new ServerProcess("/bin/sh", ["-c", script], () => undefined);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test("a server that answers is started, and one that cannot be is an error", async () => {
  const { signal } = new AbortController();
  assert.equal(await startWithin(Promise.resolve(), 1000, signal), "started");
  await assert.rejects(startWithin(Promise.reject(new Error("no")), 1000, signal), /no/);
});

test("one that never answers is waited for until the limit, or until it is not wanted any more", async () => {
  const controller = new AbortController();
  assert.equal(await startWithin(NEVER, 20, controller.signal), "late");
  const waiting = startWithin(NEVER, 60_000, controller.signal);
  controller.abort();
  assert.equal(await waiting, "given up");
  assert.equal(await startWithin(NEVER, 60_000, controller.signal), "given up");
});

test("a process that does not listen is ended", async () => {
  const server = shell("exec sleep 60");
  const { pid } = await server.start();
  assert.ok(pid && isAlive(pid));
  await server.end(false);
  assert.equal(isAlive(pid), false);
});

test("even one that does not want to end, and none is started afterwards", async () => {
  const server = shell("trap '' TERM; while :; do sleep 0.1; done");
  const { pid } = await server.start();
  await new Promise((resolve) => setTimeout(resolve, 200)); // until the trap is set
  await server.end(false);
  assert.ok(pid && !isAlive(pid));
  await assert.rejects(server.start(), /not wanted/);
});

test("one that ends by itself is let", async () => {
  const said: string[] = [];
  const server = new ServerProcess("/bin/sh", ["-c", "sleep 0.2; exit 3"], (text) => said.push(text));
  await server.start();
  await server.end(true);
  assert.deepEqual(said, ["The language server's process ended: code 3."]);
});

test("a program that does not exist is an error, and ending it is none", async () => {
  const server = new ServerProcess("/no/such/program", [], () => undefined);
  await assert.rejects(server.start(), /ENOENT/);
  await server.end(false);
});
