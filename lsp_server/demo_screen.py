"""What the demo prints: colours and live pictures on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.text import Text

from diffusion_core.cli.output import open_console
from diffusion_core.cli.preview import FRAMES_PER_SECOND, render_frame
from diffusion_core.requests import PreviewFrame
from lsp_server.demo_figures import Figures

NUM_LINES_AROUND = 3
# Marks of ghost text where there is no style to tell it by; wdiff's for something inserted.
PLAIN_MARKS = ("{+", "+}")


class Screen:
    """The demo's side of stdout."""

    def __init__(self) -> None:
        self._console = open_console(stderr=False)

    @property
    def is_plain(self) -> bool:
        """Whether there are neither colours nor live pictures."""
        return not self._console.is_terminal

    def heading(self, text: str) -> None:
        """What comes next."""
        self._console.print()
        self._console.print(text, style="bold", markup=False)

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        self._console.print(text, style=style, markup=False)

    @contextmanager
    def waiting(self) -> Iterator[Callable[[str], None]]:
        """Tells what is waited for: a spinner, or a line for each new message."""
        if self.is_plain:
            last: list[str] = []

            def tell(message: str) -> None:
                if last[-1:] != [message]:
                    last.append(message)
                    self.say(message)

            yield tell
            return
        spinner = self._console.status("")

        def update(message: str) -> None:
            spinner.update(Text(message, style="dim"))
            spinner.start()

        try:
            yield update
        finally:
            spinner.stop()

    @contextmanager
    def following_edit(self, message: str) -> Iterator[Callable[[PreviewFrame], None]]:
        """Shows the frames of an edit in one place, and nothing of them afterwards."""
        if self.is_plain:
            yield lambda frame: None
            return
        height = self._console.height - 2
        with Live(
            Spinner("dots", Text(message, style="dim")),
            console=self._console,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
        ) as live:
            yield lambda frame: live.update(render_frame(frame, height))

    def show_document(self, text: str, offset: int, ghost: str, *, num_around: int = NUM_LINES_AROUND) -> None:
        """The lines around the cursor at ``offset``, with the ghost text where an editor shows it."""
        if self.is_plain:
            whole = Text(text)
            shown = Text(ghost.join(PLAIN_MARKS) if ghost else "")
        else:
            whole = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(text)
            shown = Text(ghost, style="dim italic")
        lines = (whole[:offset] + shown + whole[offset:]).split("\n", allow_blank=True)
        first = text.count("\n", 0, offset)
        end = first + ghost.count("\n") + 1
        for number in range(max(0, first - num_around), min(len(lines), end + num_around)):
            self._console.print(Text.assemble((f"{number + 1:4}  ", "dim"), lines[number]))


def describe_ghost(milliseconds: float, figures: Figures | None) -> str:
    """One line about ghost text: how long it took, and what the engine did for it."""
    if figures is None:
        return f"{milliseconds:.1f} ms, no call of the engine"
    computed = figures.num_prompt_tokens - figures.num_reused_tokens
    return (
        f"{milliseconds:.0f} ms to the ghost text; {describe_work(figures.num_tokens, figures.num_forwards)}; "
        f"prompt of {figures.num_prompt_tokens} tokens: {figures.num_reused_tokens} reused, {computed} computed"
    )


def describe_work(num_tokens: int, num_forwards: int) -> str:
    """Tokens, forwards (NFE), and the one divided by the other."""
    per_forward = num_tokens / num_forwards if num_forwards else 0.0
    return f"{num_tokens} tokens in {num_forwards} forwards (NFE), {per_forward:.1f} tokens per forward"
