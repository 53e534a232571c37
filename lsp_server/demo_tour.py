"""The steps of the demo after the download: engine, ghost text, typing along, prefix reuse, an edit, a check of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from lsprotocol import types

from diffusion_core.cli.diffs import make_diff, print_diff
from diffusion_core.cli.options import open_client
from diffusion_core.config import ClientConfig
from diffusion_core.errors import UnmaskError
from diffusion_core.eval.sandbox import run_program
from diffusion_core.net.launcher import LocalEngine
from diffusion_core.requests import PreviewFrame
from lsp_server import demo_example as example
from lsp_server.demo_editor import DemoEditor, Ghost, open_editor
from lsp_server.demo_screen import NUM_LINES_AROUND, PLAIN_MARKS, Screen, describe_ghost, describe_work

KEY_INTERVAL_S = 0.07
NUM_ATTEMPTS = 3
NUM_TYPED_ALONG = 2
# An editor gives up after four seconds; the demo would rather show how long a busy machine takes.
GHOST_DEADLINE_MS = 30_000


class Tour:
    """Walks through the steps with one editor."""

    def __init__(self, config: ClientConfig, screen: Screen, *, stop_engine: bool) -> None:
        self._config = config
        self._screen = screen
        self._stop_engine = stop_engine

    async def run(self) -> None:
        """All steps.

        Raises:
            UnmaskError: a step cannot be done.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="unmask-demo-") as folder:
                path = Path(folder) / example.FILE_NAME
                text = example.BEFORE_CURSOR + example.AFTER_CURSOR
                path.write_text(text, encoding="utf-8")
                self._screen.heading("2. A language server and its engine")
                async with open_editor(path, text, self._settings()) as editor:
                    await self._wait_for_engine(editor)
                    cursor = await self._show_ghost_text(editor)
                    await self._show_prefix_reuse(editor, cursor)
                    await self._show_edit(editor)
        finally:
            if self._stop_engine and not self._config.url:
                await self._stop()
        if not self._stop_engine and not self._config.url:
            self._say_what_stays()

    def _settings(self) -> dict[str, object]:
        """What an editor's user would set: nothing but the engine that the command line names."""
        config = self._config
        engine = {
            "url": config.url,
            "tokenFile": config.token_file,
            "model": config.engine.model,
            "editModel": config.engine.edit_model,
        }
        # What the demonstration suggests is nothing that its user took or left.
        return {"engine": engine, "completion": {"deadlineMs": GHOST_DEADLINE_MS}, "stats": {"enabled": False}}

    async def _wait_for_engine(self, editor: DemoEditor) -> None:
        begin = time.monotonic()
        with self._screen.waiting() as tell:
            await editor.wait_ready(tell)
        self._screen.say(f"ready after {time.monotonic() - begin:.1f} s")

    async def _show_ghost_text(self, editor: DemoEditor) -> int:
        """Type, show what is suggested, type along, accept; the result is where the cursor stands then."""
        screen = self._screen
        screen.heading(f"3. Ghost text in {example.FILE_NAME}, after typing {example.FIRST_KEYS!r}")
        cursor = len(example.BEFORE_CURSOR)
        for key in example.FIRST_KEYS:
            editor.replace(cursor, cursor, key)
            cursor += 1
            await asyncio.sleep(KEY_INTERVAL_S)
        ghost, item = await self._ask(editor, cursor)
        if screen.is_plain:
            screen.say("(ghost text stands between {} and {})".format(*PLAIN_MARKS))
        self._show(editor, cursor, ghost)
        typed = ghost.text[: min(NUM_TYPED_ALONG, len(ghost.text) - 1)]
        if typed:
            screen.heading(f"4. Typing along with it: {typed!r}")
        for key in typed:
            editor.replace(cursor, cursor, key)
            cursor += 1
            await asyncio.sleep(KEY_INTERVAL_S)
            ghost, item = await self._ask(editor, cursor)
            self._show(editor, cursor, ghost, num_around=0)
        cursor = await editor.accept(item)
        screen.say("accepted with Tab")
        return cursor

    async def _show_prefix_reuse(self, editor: DemoEditor, cursor: int) -> None:
        """Another function is begun below: the engine computes what is new, not what it has read before."""
        self._screen.heading("5. Ghost text for the next function: only the new tokens are computed")
        editor.replace(cursor, cursor, example.NEXT_FUNCTION)
        cursor += len(example.NEXT_FUNCTION)
        ghost, item = await self._ask(editor, cursor)
        self._show(editor, cursor, ghost)
        await editor.accept(item)
        self._screen.say("accepted with Tab")

    async def _show_edit(self, editor: DemoEditor) -> None:
        """An instruction for the whole file; its diff, its cost, and whether the file works afterwards."""
        screen = self._screen
        task = await self._choose_task()
        screen.heading(f"6. An edit of the file: {task.instruction}")
        before = editor.text
        num_frames = 0
        begin = time.monotonic()
        with screen.following_edit("Reading the file; the edit model is loaded by its first edit.") as show:

            def count(frame: PreviewFrame) -> None:
                nonlocal num_frames
                num_frames += 1
                show(frame)

            answer = await editor.edit(task.instruction, count)
        seconds = time.monotonic() - begin
        if answer["status"] != "applied":
            raise UnmaskError(f"the edit was not made: {answer['message']}")
        print_diff(make_diff(example.FILE_NAME, before, editor.text))
        screen.say(
            f"{seconds:.1f} s; {describe_work(answer['numTokens'], answer['numForwards'])}; "
            f"{num_frames} preview frames; {answer['model']}",
            "dim",
        )
        if answer["notice"]:
            screen.say(answer["notice"], "yellow")
        await self._check(editor.text, task)

    async def _choose_task(self) -> example.EditTask:
        """The usual edit, or a smaller one where the model for completions has to answer edits too."""
        async with open_client(self._config) as client:
            health = await client.health()
        names = {model.task: model.name for model in health.models}
        return example.SMALL_TASK if names.get("edit") == names.get("complete") else example.USUAL_TASK

    async def _check(self, text: str, task: example.EditTask) -> None:
        """Run the edited file; in the sandbox, because a model has written parts of it."""
        verdict = await run_program(text + task.check)
        if verdict.passed:
            self._screen.say(f"Check: the edited file works ({task.checked}).", "green")
            return
        said = verdict.output.strip().splitlines()
        why = said[-1] if said else verdict.outcome.value
        self._screen.say(f"Check: the edited file does not work: {why}", "red")

    async def _ask(self, editor: DemoEditor, cursor: int) -> tuple[Ghost, types.InlineCompletionItem]:
        """Ghost text as an editor asks for it while the user types, then, if there is none, as on the user's demand."""
        reason = ""
        for number in range(NUM_ATTEMPTS):
            with self._screen.waiting() as tell:
                await editor.wait_ready(tell)
            ghost = await editor.ask_for_ghost_text(cursor, invoked=number > 0)
            if ghost.item is not None:
                return ghost, ghost.item
            reason = await editor.why_nothing()
        raise UnmaskError(f"the model suggests nothing here ({reason})")

    def _show(self, editor: DemoEditor, cursor: int, ghost: Ghost, *, num_around: int = NUM_LINES_AROUND) -> None:
        self._screen.show_document(editor.text, cursor, ghost.text, num_around=num_around)
        self._screen.say(describe_ghost(ghost.milliseconds, ghost.figures), "dim")

    async def _stop(self) -> None:
        engine = LocalEngine(self._config)
        try:
            was_running = await engine.stop()
        finally:
            await engine.aclose()
        self._screen.say("\nThe engine is stopped." if was_running else "\nNo engine is running.")

    def _say_what_stays(self) -> None:
        minutes = self._config.engine_idle_exit_s / 60
        self._screen.say(
            f"\nThe engine stays for the next command or editor and stops after {minutes:.0f} idle minutes.\n"
            "  unmask status               what it is doing\n"
            "  unmask lsp                  the language server, for an editor\n"
            "  unmask demo --stop-engine   this again, and stop it at the end"
        )
