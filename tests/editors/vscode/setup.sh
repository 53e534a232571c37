#!/usr/bin/env bash
# Puts a real VS Code for the end-to-end tests into .editors/ of the checkout: code-server and its native modules, the
# extension's build, and Chromium from the system's packages. Quick when everything is there. On failure the last line
# of stderr says why.
set -euo pipefail

CODE_SERVER_VERSION=4.100.3 # VS Code 1.100; the last one for Node 20
ROOT=$(cd "$(dirname "$0")/../../.." && pwd)
EDITORS="$ROOT/.editors"
HOME_OF_SERVER="$EDITORS/code-server-$CODE_SERVER_VERSION"
LOG="$EDITORS/setup.log"

fail() {
  echo "$1" >&2
  exit 1
}

# Runs a command with its output in the log; says what failed otherwise.
logged() {
  local what=$1
  shift
  "$@" >>"$LOG" 2>&1 || fail "$what failed: see $LOG"
}

mkdir -p "$EDITORS"
exec 9>"$EDITORS/setup.lock"
flock 9

# --- Node ------------------------------------------------------------------------------------------------------------
command -v node >/dev/null && command -v npm >/dev/null || fail "node and npm are not installed: Node 20 is needed"
NODE_MAJOR=$(node --version | sed -E 's/^v([0-9]+).*/\1/')
[ "$NODE_MAJOR" = 20 ] || fail "Node $(node --version) is installed: code-server $CODE_SERVER_VERSION needs Node 20"

# --- Chromium --------------------------------------------------------------------------------------------------------
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "Chromium is not installed: apt-get install chromium"
  export DEBIAN_FRONTEND=noninteractive
  logged "apt-get update" apt-get update
  logged "apt-get install chromium" apt-get install -y --no-install-recommends chromium fonts-dejavu-core
fi

# --- code-server -----------------------------------------------------------------------------------------------------
if [ ! -e "$HOME_OF_SERVER/.complete" ]; then
  rm -rf "$HOME_OF_SERVER" "$EDITORS/package"
  (cd "$EDITORS" && logged "npm pack code-server" npm pack --silent "code-server@$CODE_SERVER_VERSION")
  tar -xzf "$EDITORS/code-server-$CODE_SERVER_VERSION.tgz" -C "$EDITORS"
  rm "$EDITORS/code-server-$CODE_SERVER_VERSION.tgz"
  mv "$EDITORS/package" "$HOME_OF_SERVER"
  # One of the lock files names a dependency by its git address, which a closed network cannot reach.
  find "$HOME_OF_SERVER" -name npm-shrinkwrap.json -not -path '*/node_modules/*' -delete
  for folder in "$HOME_OF_SERVER" "$HOME_OF_SERVER/lib/vscode"; do
    (cd "$folder" && logged "npm install in $folder" npm install --omit=dev --ignore-scripts --no-audit --no-fund)
  done
  for module in @vscode/spdlog native-watchdog node-pty @parcel/watcher; do
    # VS Code starts only with native-watchdog; without the others it logs, runs terminals or sees file changes less well.
    if ! (cd "$HOME_OF_SERVER/lib/vscode" && npm rebuild --foreground-scripts "$module" >>"$LOG" 2>&1); then
      case $module in *native-watchdog) fail "npm rebuild $module failed (a C++ compiler is needed): see $LOG" ;; esac
    fi
  done
  (cd "$HOME_OF_SERVER" && logged "npm rebuild argon2" npm rebuild --foreground-scripts argon2)
  ln -sfn node_modules "$HOME_OF_SERVER/lib/vscode/node_modules.asar"
  touch "$HOME_OF_SERVER/.complete"
fi
ln -sfn "$HOME_OF_SERVER" "$EDITORS/code-server"

# --- the extension ---------------------------------------------------------------------------------------------------
EXTENSION="$ROOT/editors/vscode"
cd "$EXTENSION"
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  logged "npm ci in editors/vscode" npm ci --no-audit --no-fund
fi
VSIX="$EDITORS/unmask.vsix"
# The package holds the language server's wheel as well.
if [ ! -e "$VSIX" ] || [ -n "$(find . "$ROOT/lsp_server" "$ROOT/diffusion_core" "$ROOT/train" "$ROOT/pyproject.toml" \
  \( -path ./node_modules -o -path ./dist -o -path ./out -o -path ./server -o -name __pycache__ \) -prune \
  -o -type f -newer "$VSIX" -print -quit)" ]; then
  logged "npm run build" npm run build
  logged "npm run package" npm run package -- --out "$VSIX"
fi
