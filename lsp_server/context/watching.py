"""Changes of files on disk: told by the editor, or by the operating system where the editor cannot."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lsp_server.context.source_files import LANGUAGE_OF

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

logger = logging.getLogger(__name__)


def watched_glob() -> str:
    """The files that an editor is asked to watch."""
    return "**/*.{" + ",".join(sorted(ending.lstrip(".") for ending in LANGUAGE_OF)) + "}"


class FolderWatch:
    """Watches folders by the operating system; tells paths from a thread of its own."""

    def __init__(self, tell: Callable[[Path], None]) -> None:
        self._tell = tell
        self._observer: BaseObserver | None = None

    def start(self, roots: Iterable[Path]) -> None:
        """Begin; what cannot be watched is logged and stays as it was first read."""
        from watchdog.events import FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer

        tell = self._tell

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                if event.event_type not in {"created", "modified", "moved", "deleted"} or event.is_directory:
                    return
                for name in (event.src_path, event.dest_path):
                    if name and isinstance(name, str | bytes):
                        tell(Path(os.fsdecode(name)))

        self.close()
        observer = Observer()
        try:
            for root in roots:
                observer.schedule(Handler(), str(root), recursive=True)
            observer.start()
        except OSError as error:  # no such folder, or no more watches to be had
            logger.warning("the workspace cannot be watched for changes: %s", error.strerror)
            observer.unschedule_all()
            return
        self._observer = observer

    def close(self) -> None:
        """Stop."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=5)
            self._observer = None
