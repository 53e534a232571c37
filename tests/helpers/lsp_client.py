"""An editor for tests: speaks LSP to a real language-server process, message by message.

It keeps every message, counts the answers of each request, and holds buffers of its own that applied edits change.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 20.0
URI = "file:///project/main.py"

CODECS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}


class ReferenceBuffer:
    """A text as the bytes of an editor's code units: every edit is a slice of bytes. Slow and obvious."""

    def __init__(self, text: str, encoding: str) -> None:
        self.codec, self.unit = CODECS[encoding]
        self.data = text.encode(self.codec)

    @property
    def text(self) -> str:
        return self.data.decode(self.codec)

    def offset(self, line: int, character: int) -> int:
        """Byte offset, clamped as LSP says."""
        spans = []  # begin and end of every line's content
        begin = 0
        for match in re.finditer(r"\r\n|\n|\r", self.text):
            spans.append((begin, match.start()))
            begin = match.end()
        spans.append((begin, len(self.text)))
        if line >= len(spans):
            return len(self.data)
        begin, end = spans[line]
        content = self.text[begin:end].encode(self.codec)
        return len(self.text[:begin].encode(self.codec)) + min(character * self.unit, len(content))

    def replace(self, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
        self.data = self.data[: self.offset(*start)] + text.encode(self.codec) + self.data[self.offset(*end) :]

    def apply(self, edits: list[dict[str, Any]]) -> None:
        """Edits of one change: all of them mean the text before any of them."""
        spots = [
            (*(self.offset(edit["range"][side]["line"], edit["range"][side]["character"]) for side in ("start", "end")),
             edit["newText"])
            for edit in edits
        ]  # fmt: skip
        for start, end, text in sorted(spots, reverse=True):
            self.data = self.data[:start] + text.encode(self.codec) + self.data[end:]


async def wait_until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    """Until something true; it happens in another thread or process, so it must be looked at."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - nobody there could set an event of ours
            await asyncio.sleep(0.005)


class LspError(Exception):
    """An error answer."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: int = error["code"]
        self.message: str = error["message"]


class EditorClient:
    """One editor with one language server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.received: list[dict[str, Any]] = []
        self.answers: Counter[int] = Counter()
        self.buffers: dict[str, ReferenceBuffer] = {}
        self.versions: dict[str, int] = {}
        self.configuration: Any = None
        self.accepts_edits = True
        self.before_apply: Callable[[], None] = lambda: None
        self.encoding = "utf-16"
        self.capabilities: dict[str, Any] = {}
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._next_id = 0
        self._changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    # Messages

    def notify(self, method: str, params: Any = None) -> None:
        self._send({"method": method, "params": params})

    def begin(self, method: str, params: Any) -> tuple[int, asyncio.Future[Any]]:
        """Send a request; its id and its coming answer."""
        self._next_id += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._next_id] = future
        self._send({"id": self._next_id, "method": method, "params": params})
        return self._next_id, future

    async def request(self, method: str, params: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
        return await asyncio.wait_for(self.begin(method, params)[1], timeout_s)

    def cancel(self, request_id: int) -> None:
        self.notify("$/cancelRequest", {"id": request_id})

    def of_method(self, method: str) -> list[Any]:
        return [message["params"] for message in self.received if message.get("method") == method]

    async def wait_for(
        self, method: str, matches: Callable[[Any], bool] = lambda _: True, timeout_s: float = TIMEOUT_S
    ) -> Any:
        """The first notification or request of that kind which matches, be it here already or still to come."""

        def found() -> list[Any]:
            return [params for params in self.of_method(method) if matches(params)]

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: bool(found())), timeout_s)
            except TimeoutError:
                raise AssertionError(f"no {method} as expected; there were {self.of_method(method)}") from None
        return found()[0]

    async def wait_for_status(self, reason: str, timeout_s: float = TIMEOUT_S, since: int = 0) -> Any:
        """A status with that reason after the first ``since`` messages."""
        return await self.wait_for(
            "$/unmask/status",
            lambda status: (
                status["reason"] == reason and any(message.get("params") is status for message in self.received[since:])
            ),
            timeout_s,
        )

    # Editing

    def open(self, text: str, uri: str = URI, language: str = "python") -> None:
        self.buffers[uri] = ReferenceBuffer(text, self.encoding)
        self.versions[uri] = 1
        item = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})

    def change(self, start: tuple[int, int], end: tuple[int, int], text: str, uri: str = URI) -> None:
        self.buffers[uri].replace(start, end, text)
        self.versions[uri] += 1
        span = {"start": _position(*start), "end": _position(*end)}
        self.notify(
            "textDocument/didChange",
            {
                "textDocument": {"uri": uri, "version": self.versions[uri]},
                "contentChanges": [{"range": span, "text": text}],
            },
        )

    def begin_inline(
        self, line: int, character: int, *, invoked: bool = False, selected: Any = None, uri: str = URI
    ) -> tuple[int, asyncio.Future[Any]]:
        context: dict[str, Any] = {"triggerKind": 1 if invoked else 2}
        if selected:
            context["selectedCompletionInfo"] = selected
        params = {"textDocument": {"uri": uri}, "position": _position(line, character), "context": context}
        return self.begin("textDocument/inlineCompletion", params)

    async def inline(self, line: int, character: int, **options: Any) -> list[dict[str, Any]]:
        answer = await asyncio.wait_for(self.begin_inline(line, character, **options)[1], TIMEOUT_S)
        return answer["items"]

    async def execute(self, command: str, *arguments: Any, **fields: Any) -> Any:
        return await self.request(
            "workspace/executeCommand", {"command": command, "arguments": list(arguments), **fields}
        )

    # Life

    async def initialize(
        self,
        options: Any = None,
        *,
        inline_completion: bool = True,
        encoding: str = "utf-16",
        apply_edit: bool = True,
        configuration: bool = False,
        progress: bool = False,
        folders: Sequence[Path] = (),
        root: Path | None = None,
        file_watching: bool = False,
        notebooks: bool = False,
        edit_prompt: bool = False,
        code_action_literals: bool = True,
    ) -> dict[str, Any]:
        """The handshake up to ``initialized``; the result is the answer to ``initialize``."""
        self.encoding = encoding
        document: dict[str, Any] = {"synchronization": {"dynamicRegistration": True}, "completion": {}}
        if inline_completion:
            document["inlineCompletion"] = {"dynamicRegistration": True}
        if code_action_literals:
            kinds = {"codeActionKind": {"valueSet": ["quickfix", "refactor"]}}
            document["codeAction"] = {"codeActionLiteralSupport": kinds}
        workspace: dict[str, Any] = {
            "applyEdit": apply_edit,
            "workspaceEdit": {"documentChanges": True},
            "configuration": configuration,
            "didChangeConfiguration": {"dynamicRegistration": configuration},
        }
        if file_watching:
            workspace["didChangeWatchedFiles"] = {"dynamicRegistration": True}
        capabilities: dict[str, Any] = {
            "textDocument": document,
            "workspace": workspace,
            "window": {"workDoneProgress": progress},
            "general": {"positionEncodings": [encoding]},
        }
        if notebooks:
            capabilities["notebookDocument"] = {"synchronization": {"dynamicRegistration": True}}
        if edit_prompt:
            capabilities["experimental"] = {"unmask": {"editPrompt": True}}
        params: dict[str, Any] = {"processId": os.getpid(), "capabilities": capabilities}
        params["rootUri"] = root.as_uri() if root else None
        if folders:
            params["workspaceFolders"] = [{"uri": folder.as_uri(), "name": folder.name} for folder in folders]
        answer = await self.request("initialize", {**params, "initializationOptions": options})
        self.capabilities = answer["capabilities"]
        self.notify("initialized", {})
        return answer

    async def shut_down(self) -> int:
        """shutdown and exit; the result is the process's exit code."""
        await self.request("shutdown")
        self.notify("exit")
        return await asyncio.wait_for(self.process.wait(), TIMEOUT_S)

    async def aclose(self) -> None:
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), TIMEOUT_S)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self._reader

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    async def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while True:
            try:
                header = await stream.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            match = re.search(rb"Content-Length: (\d+)", header)
            assert match, f"stdout carries something else than the protocol: {header!r}"
            message = json.loads(await stream.readexactly(int(match[1])))
            self.received.append(message)
            if "method" not in message:
                self._take_answer(message)
            elif "id" in message:
                self._send({"id": message["id"], "result": self._answer(message["method"], message["params"])})
            async with self._changed:
                self._changed.notify_all()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the language server ended"))

    def _take_answer(self, message: dict[str, Any]) -> None:
        self.answers[message["id"]] += 1
        future = self._waiting[message["id"]]
        if not future.done():
            if "error" in message:
                future.set_exception(LspError(message["error"]))
            else:
                future.set_result(message.get("result"))

    def _answer(self, method: str, params: Any) -> Any:
        match method:
            case "workspace/applyEdit":
                return self._apply(params["edit"])
            case "workspace/configuration":
                return [self.configuration for _ in params["items"]]
            case _:
                return None

    def _apply(self, edit: dict[str, Any]) -> dict[str, Any]:
        """As a careful editor does: versioned changes only, and only of the version that is in the buffer."""
        self.before_apply()
        if not self.accepts_edits:
            return {"applied": False, "failureReason": "the user said no"}
        for change in edit["documentChanges"]:
            uri, version = change["textDocument"]["uri"], change["textDocument"]["version"]
            if version != self.versions[uri]:
                return {"applied": False, "failureReason": f"version {version} is not {self.versions[uri]}"}
            self.buffers[uri].apply(change["edits"])
            self.versions[uri] += 1
            document = {"uri": uri, "version": self.versions[uri]}
            changes = [{"text": self.buffers[uri].text}]
            self.notify("textDocument/didChange", {"textDocument": document, "contentChanges": changes})
        return {"applied": True}


@asynccontextmanager
async def open_editor(*arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[EditorClient]:
    """An editor whose language server has just been started; nothing was sent yet."""
    with tempfile.TemporaryDirectory() as state:  # the user's own statistics are no place for what tests do
        environment = {**os.environ, "UNMASK_STATE_DIR": state, **(env or {})}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lsp_server", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment,
        )  # fmt: skip
        editor = EditorClient(process)
        try:
            yield editor
        finally:
            await editor.aclose()


def _position(line: int, character: int) -> dict[str, int]:
    return {"line": line, "character": character}
