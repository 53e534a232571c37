// Builds the language server's wheel into server/, so that the extension installs the very version it was made with and
// never asks a package index for a name. $PYTHON, the checkout's .venv, or python3 builds it.
import { execFileSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";

const root = resolve("../..");
const ours = join(root, ".venv", "bin", "python");
const python = process.env.PYTHON ?? (existsSync(ours) ? ours : "python3");
rmSync("server", { recursive: true, force: true });
execFileSync(
  python,
  ["-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps", "--wheel-dir", "server", root],
  { stdio: "inherit" },
);
