"""The server's one status: sent as ``$/unmask/status`` when it changes, and kept for whoever asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from lsp_server.reporting import Kind, Status

STATUS_METHOD = "$/unmask/status"
Notify = Callable[[str, dict[str, object]], None]


class StatusBoard:
    """Engine state plus work under way; counts why suggestions were not made."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._engine = Status(kind=Kind.BUSY, reason="starting", message="Starting.")
        self._off = False
        self._is_ignored = False
        self._problems: list[str] = []
        self._detour = ""
        self._num_busy = 0
        self._sent: Status | None = None
        self.on_count: Callable[[str], None] = lambda _: None
        self.reasons: Counter[str] = Counter()
        self.last_reason = ""

    @property
    def current(self) -> Status:
        """What is shown now."""
        if self._off:
            return replace(self._engine, kind=Kind.INACTIVE, reason="disabled", message="Suggestions are switched off.")
        if self._is_ignored:
            message = "This file is ignored (.gitignore, .unmaskignore or unmask.ignore): no suggestions, no edits."
            return replace(self._engine, kind=Kind.INACTIVE, reason="ignored", message=message)
        if self._num_busy and self._engine.kind is Kind.NORMAL:
            return replace(self._engine, kind=Kind.BUSY, reason="editing", message="An edit is being made.")
        if self._detour and self._engine.kind is Kind.NORMAL:
            return replace(self._engine, kind=Kind.WARNING, reason="local", message=self._detour)
        if self._problems and self._engine.kind is Kind.NORMAL:
            return replace(self._engine, kind=Kind.WARNING, reason="settings", message=" ".join(self._problems))
        return self._engine

    @property
    def engine_reason(self) -> str:
        """The state of the engine alone, in one word."""
        return self._engine.reason

    def set_ignored(self, is_ignored: bool) -> None:
        """Whether the document that was asked about last is to be left alone."""
        if is_ignored != self._is_ignored:
            self._is_ignored = is_ignored
            self._publish()

    def set_problems(self, messages: list[str]) -> None:
        """What is wrong with the settings; shown while nothing worse is."""
        self._problems = messages
        self._publish()

    def set_detour(self, message: str) -> None:
        """Why the local engine answers instead of the remote one; empty: it does not."""
        self._detour = message
        self._publish()

    def set_engine(self, status: Status) -> None:
        """The engine's state changed (or was looked at again); what was measured stays unless given anew."""
        self._engine = replace(
            status,
            model=status.model or self._engine.model,
            latency_ms=status.latency_ms or self._engine.latency_ms,
        )
        self._publish()

    def set_off(self, off: bool) -> None:
        """Suggestions were switched off or on."""
        self._off = off
        self._publish()

    def note_latency(self, latency_ms: float, model: str, notice: str) -> None:
        """A request was answered. The new figure is sent together with the next change of state."""
        ready = Status(kind=Kind.NORMAL, reason="ready", message=notice or "Ready.")
        self.set_engine(replace(ready, model=model, latency_ms=round(latency_ms)))

    def begin_work(self) -> None:
        """An edit began."""
        self._num_busy += 1
        self._publish()

    def end_work(self) -> None:
        """An edit ended."""
        self._num_busy -= 1
        self._publish()

    def count(self, reason: str) -> None:
        """Nothing is shown, for this reason."""
        self.reasons[reason] += 1
        self.last_reason = reason
        self.on_count(reason)

    def _publish(self) -> None:
        status = self.current
        if self._sent is None or replace(status, latency_ms=0) != replace(self._sent, latency_ms=0):
            self._sent = status
            self._notify(STATUS_METHOD, dict(status.to_params()))
