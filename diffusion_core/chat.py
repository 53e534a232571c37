"""A conversation with the model that edits, and engines that stream what they write; no torch.

Conversations reach the engine from the OpenAI-compatible interface; they do not travel on Unmask's own wire.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import (
    MAX_TOKENS_LIMIT,
    CompletionRequest,
    DecodingParams,
    EngineClient,
    PreviewFrame,
    Result,
    SamplingParams,
    check_stops,
    new_request_id,
)

MAX_TURNS = 1000


class Role(StrEnum):
    """Who says something."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What somebody said."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What the assistant says next. Where the last turn is its own, the answer goes on with it.

    ``prediction`` is a text that much of the answer is expected to be: only a draft, which never changes the answer of
    a verified policy. ``max_tokens`` 0 means as many as an edit may have; other fields are as for an edit.
    """

    turns: tuple[Turn, ...]
    prediction: str = ""
    stop: tuple[str, ...] = ()
    max_tokens: int = 0
    deadline_ms: int = 0
    model: str = ""
    decoding: DecodingParams = field(default_factory=DecodingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    id: str = field(default_factory=new_request_id)

    def __post_init__(self) -> None:
        if not 0 <= self.max_tokens <= MAX_TOKENS_LIMIT:
            raise InvalidRequest(f"max_tokens is {self.max_tokens}: allowed is 0 to {MAX_TOKENS_LIMIT}")
        if self.deadline_ms < 0:
            raise InvalidRequest(f"deadline_ms is {self.deadline_ms}: it cannot be negative")
        if not 1 <= len(self.turns) <= MAX_TURNS:
            raise InvalidRequest(f"a conversation of {len(self.turns)} turns: allowed are 1 to {MAX_TURNS}")
        check_stops(self.stop)


@runtime_checkable
class StreamsText(Protocol):
    """An engine that shows text as soon as it is settled, and that chats."""

    def stream(self, request: CompletionRequest | ChatRequest) -> AsyncIterator[PreviewFrame | Result]:
        """Frames whose settled text only ever grows, then exactly one :class:`Result` as the last item."""
        ...


async def stream_from(
    engine: EngineClient, request: CompletionRequest | ChatRequest
) -> AsyncGenerator[PreviewFrame | Result, None]:
    """The answer of any engine as a stream: of one that does not stream, in one piece.

    Raises:
        InvalidRequest: a conversation with an engine that does not chat.
    """
    if not isinstance(engine, StreamsText):
        if isinstance(request, ChatRequest):
            raise InvalidRequest("this engine does not chat")
        yield await engine.complete(request)
        return
    items = engine.stream(request)
    try:
        async for item in items:
            yield item
    finally:
        # Also when the reader leaves: the generator's own clean-up stops the engine's work.
        if isinstance(items, AsyncGenerator):
            await items.aclose()
