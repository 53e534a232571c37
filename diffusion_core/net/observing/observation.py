"""What is noted about one HTTP request on its way through the server: figures, codes and names, never a text.

The request's context holds its :class:`Observation`, so whatever works for it, in whichever task, can add to it.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import StrEnum

from diffusion_core.errors import (
    Closed,
    ContextTooLong,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    Overloaded,
    ProtocolMismatch,
    RateLimited,
    RequestCancelled,
    Unauthorized,
)
from diffusion_core.requests import FinishReason, Result

NOT_FOUND = "not_found"  # no such route
_REJECTIONS = frozenset(
    each.code
    for each in (
        Unauthorized, Forbidden, RateLimited, Overloaded, Closed, InvalidRequest, ContextTooLong, ProtocolMismatch,
    )
)  # fmt: skip
# For answers that some other part of the server gave without naming an error.
_CODES_BY_STATUS = {
    400: InvalidRequest.code, 401: Unauthorized.code, 403: Forbidden.code, 404: NOT_FOUND, 405: NOT_FOUND,
    413: ContextTooLong.code, 422: InvalidRequest.code, 429: RateLimited.code, 499: RequestCancelled.code,
    503: Overloaded.code, 504: DeadlineExceeded.code,
}  # fmt: skip


class Outcome(StrEnum):
    """How a request ended, as metrics and load count it."""

    OK = "ok"
    REJECTED = "rejected"  # before the engine did any work
    CANCELLED = "cancelled"
    DEADLINE = "deadline"  # a partial text or none
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the engine did for one call. ``result`` holds no text; a warm-up has none at all."""

    task: str  # complete, edit or warm
    began_ns: int  # when the engine was called, since the epoch
    result: Result | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Observation:
    """One request. ``code`` is that of the error it was answered with, empty if there was none."""

    request_id: str
    proxy_id: str = ""  # X-Request-Id as it came, where the request itself has another id
    traceparent: str = ""
    method: str = ""
    route: str = ""  # as the application declares it, with the names of its parameters; empty: no such route
    user: str = ""
    status: int = 0  # 0: the client left before an answer
    code: str = ""
    task: str = ""  # what the engine was last asked for; empty: nothing
    was_cancelled: bool = False  # the engine's work was
    answers: list[Answer] = field(default_factory=list)
    began_ns: int = field(default_factory=time.time_ns)
    ended_ns: int = 0
    began: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0

    def note_result(self, task: str, began_ns: int, result: Result | None) -> None:
        """Keep the figures of an answer and none of its texts."""
        if result is not None:
            result = replace(result, text="", alternatives=(), notice="")
        self.answers.append(Answer(task=task, began_ns=began_ns, result=result))

    def end(self) -> None:
        """Note the time, and how it ended if nobody said so."""
        self.seconds = time.perf_counter() - self.began
        self.ended_ns = self.began_ns + int(self.seconds * 1e9)
        if not self.code and self.status >= 400:
            self.code = _CODES_BY_STATUS.get(self.status, "internal" if self.status >= 500 else InvalidRequest.code)

    @property
    def results(self) -> list[Result]:
        """Figures of all answers that have some."""
        return [answer.result for answer in self.answers if answer.result is not None]

    @property
    def outcome(self) -> Outcome:
        """How it ended; only of an ended one."""
        if self.code in _REJECTIONS or self.code == NOT_FOUND:
            return Outcome.REJECTED
        if self.code == DeadlineExceeded.code or any(r.finish_reason is FinishReason.DEADLINE for r in self.results):
            return Outcome.DEADLINE
        if self.code == RequestCancelled.code or (not self.code and (self.was_cancelled or self.status == 0)):
            return Outcome.CANCELLED
        return Outcome.ERROR if self.code else Outcome.OK


def note_error(code: str) -> None:
    """Note the code of the error with which the request of this context is answered."""
    if (observation := CURRENT.get()) is not None:
        observation.code = code


CURRENT: ContextVar[Observation | None] = ContextVar("unmask_observation", default=None)
