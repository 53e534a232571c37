"""Preview of an edit while it is made: ``$/unmask/editPreview`` notifications, at most 15 a second.

Editors draw them as decorations or virtual lines and never put them into the buffer.
"""

from __future__ import annotations

import time

from diffusion_core.requests import PreviewFrame
from lsp_server.postprocess.indentation import restore_indentation
from lsp_server.snapshot import Snapshot
from lsp_server.status_board import Notify

PREVIEW_METHOD = "$/unmask/editPreview"
MIN_INTERVAL_S = 1 / 15


class Preview:
    """The preview of one edit of ``snapshot``; the text is shown in the indentation of ``pattern``."""

    def __init__(self, notify: Notify, edit_id: str, snapshot: Snapshot, pattern: str) -> None:
        self._notify = notify
        self._edit_id = edit_id
        self._snapshot = snapshot
        self._pattern = pattern
        self._last_sent_s = 0.0

    def show(self, frame: PreviewFrame) -> None:
        """Send a frame unless the last one is too recent; a later one always holds what it held."""
        now = time.monotonic()
        if now - self._last_sent_s >= MIN_INTERVAL_S:
            self._last_sent_s = now
            whole = restore_indentation(self._pattern, frame.settled + frame.unsettled)
            split = len(restore_indentation(self._pattern, frame.settled))
            self._send(whole[:split], whole[split:], done=False)

    def finish(self, text: str) -> None:
        """Send the last frame: the final text, or nothing if there is none."""
        self._send(restore_indentation(self._pattern, text), "", done=True)

    def _send(self, settled: str, unsettled: str, *, done: bool) -> None:
        self._notify(
            PREVIEW_METHOD,
            {
                "editId": self._edit_id,
                "uri": self._snapshot.uri,
                "version": self._snapshot.version,
                "settled": settled,
                "unsettled": unsettled,
                "done": done,
            },
        )
