"""Follows an edit to its end; on a terminal the text is shown while it sharpens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_core.cli.output import open_console
from diffusion_core.eval.ask import read_edit
from diffusion_core.requests import EditRequest, EngineClient, PreviewFrame, Result

if TYPE_CHECKING:
    from rich.text import Text

FRAMES_PER_SECOND = 12


async def follow_edit(client: EngineClient, request: EditRequest) -> Result:
    """The result of the edit. The preview is on stderr and disappears at the end.

    Raises:
        EngineError: the engine ended the stream without a result.
    """
    console = open_console()
    if not console.is_terminal:
        return await read_edit(client, request, lambda frame: None)

    from rich.live import Live

    with Live(console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True) as live:
        return await read_edit(client, request, lambda frame: live.update(render_frame(frame, console.height - 2)))


def render_frame(frame: PreviewFrame, height: int) -> Text:
    """The end of the settled text, as much as fits, and the unsettled text after it in grey."""
    from rich.text import Text

    num_unsettled = frame.unsettled.count("\n") + 1
    settled = frame.settled.split("\n")
    shown = "\n".join(settled[-max(1, height - min(num_unsettled, height // 2)) :])
    text = Text(shown, no_wrap=True, overflow="ellipsis")
    text.append("\n".join(frame.unsettled.split("\n")[: max(1, height // 2)]), style="dim")
    return text
