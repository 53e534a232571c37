"""Units of work: what a client asks of an engine and what it gets back.

These classes are what travels on the wire (``net/protocol.py``), so they hold plain values only and validate
themselves on construction. Text is Unicode; the engine alone knows about tokens. Times are milliseconds.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from diffusion_core.decoding_report import DecodingReport
from diffusion_core.errors import InvalidRequest

MAX_INSTRUCTION_CHARACTERS = 10_000
# Stands in a warm-up for an instruction of which nothing is known yet.
UNKNOWN_INSTRUCTION = "…"
MAX_TOKENS_LIMIT = 8192
# Of fields that came after their message: left out where they say nothing, so that who does not know them can read it.
OMIT_DEFAULT = MappingProxyType({"omit_default": True})
MAX_SNIPPETS = 64
MAX_ALTERNATIVES = 8
MAX_STOPS = 64
MAX_STOP_CHARACTERS = 1024


class Policy(StrEnum):
    """How the block decoder commits tokens. ``AUTO`` takes the best policy the checkpoint supports."""

    AUTO = "auto"
    AUTOREGRESSIVE = "autoregressive"
    VERIFIED = "verified"
    CONFIDENCE = "confidence"
    FIXED = "fixed"
    P2 = "p2"  # checkpoints that are denoised as a whole: the least certain are masked again at every step


class CanvasCache(StrEnum):
    """Whose keys and values a checkpoint that is denoised as a whole keeps while it denoises a block.

    ``NONE``: nobody's, the reference. ``PREFIX``: those of everything before the block. ``DUAL``: those of everything
    but the block. Kept ones are made anew at every block. ``AUTO``: ``PREFIX``.
    """

    AUTO = "auto"
    NONE = "none"
    PREFIX = "prefix"
    DUAL = "dual"


class FinishReason(StrEnum):
    """Why a text ended where it ends."""

    STOP = "stop"  # the model ended it
    TEXT = "text"  # what follows is one of the texts that were to stop it
    LINE = "line"  # single-line mode: the line is complete
    SCOPE = "scope"  # dedent below the scope the text began in
    SUFFIX = "suffix"  # what follows repeats the text after the cursor
    REPETITION = "repetition"
    LENGTH = "length"  # the token budget is spent
    DEADLINE = "deadline"  # a partial text, cut by the deadline
    CANCELLED = "cancelled"


def new_request_id() -> str:
    """A fresh identifier; it appears in every log line about the request."""
    return uuid.uuid4().hex[:16]


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidRequest(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How a token is drawn from its distribution. Temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check(0.0 <= self.temperature <= 5.0, f"sampling.temperature is {self.temperature}: allowed is 0 to 5")
        _check(0.0 < self.top_p <= 1.0, f"sampling.top_p is {self.top_p}: allowed is above 0, up to 1")
        _check(0 <= self.seed < 2**63, f"sampling.seed is {self.seed}: allowed is 0 to 2^63 - 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingParams:
    """Choices of the block decoder (design: the policies of decoding.md section 2).

    ``block_size`` 0 lets the engine choose. ``tau`` and ``tau_low`` belong to ``confidence``, ``num_per_step`` to
    ``fixed`` and ``p2``, ``cache`` to checkpoints that are denoised as a whole. ``use_lookup`` and ``use_mask_drafts``
    switch draft sources off, for measurements.
    """

    policy: Policy = Policy.AUTO
    block_size: int = 0
    tau: float = 0.9
    tau_low: float = 0.1
    num_per_step: int = 1
    use_lookup: bool = True
    use_mask_drafts: bool = True
    cache: CanvasCache = field(default=CanvasCache.AUTO, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        _check(0 <= self.block_size <= 256, f"decoding.block_size is {self.block_size}: allowed is 0 to 256")
        _check(0.0 < self.tau <= 1.0, f"decoding.tau is {self.tau}: allowed is above 0, up to 1")
        _check(0.0 <= self.tau_low < 1.0, f"decoding.tau_low is {self.tau_low}: allowed is 0 to below 1")
        _check(
            1 <= self.num_per_step <= 256,
            f"decoding.num_per_step is {self.num_per_step}: allowed is 1 to 256",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A piece of another file, shown to the model before the file itself."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """Fill in the middle: what belongs between ``prefix`` and ``suffix``.

    ``last_suggestion`` is the text that was expected to follow ``prefix`` (an earlier suggestion's tail); it is
    only a draft and never changes the answer of a verified policy. ``max_tokens`` 0 means the engine's default;
    ``deadline_ms`` 0 means none. ``model`` empty means the engine's default for the task.
    ``repository`` names the project the ``snippets`` are from. ``num_alternatives`` asks for other answers besides the
    best one; they cost time of their own, at most ``alternatives_ms`` after the best one is there (0: no such limit).
    The answer ends before any of the texts ``stop``, before a line that is indented by fewer than ``min_indent``
    characters, and as soon as it has a whole line and its making took ``line_ms`` milliseconds (0: no such limit).
    """

    prefix: str
    suffix: str = ""
    language: str = ""
    path: str = ""
    repository: str = ""
    snippets: tuple[Snippet, ...] = ()
    num_alternatives: int = 0
    alternatives_ms: int = 0
    last_suggestion: str = ""
    single_line: bool = False
    stop_at_scope: bool = True
    max_tokens: int = 0
    deadline_ms: int = 0
    model: str = ""
    decoding: DecodingParams = field(default_factory=DecodingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    id: str = field(default_factory=new_request_id)
    stop: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)
    min_indent: int = field(default=0, metadata=OMIT_DEFAULT)
    line_ms: int = field(default=0, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        _check_limits(self.max_tokens, self.deadline_ms, self.snippets)
        check_stops(self.stop)
        _check(0 <= self.min_indent <= 1000, f"min_indent is {self.min_indent}: allowed is 0 to 1000")
        _check(self.line_ms >= 0, f"line_ms is {self.line_ms}: it cannot be negative")
        _check(
            0 <= self.num_alternatives <= MAX_ALTERNATIVES,
            f"num_alternatives is {self.num_alternatives}: allowed is 0 to {MAX_ALTERNATIVES}",
        )
        _check(self.alternatives_ms >= 0, f"alternatives_ms is {self.alternatives_ms}: it cannot be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """Rewrite ``selection`` (whole lines) by ``instruction``; ``before`` and ``after`` are the text around it."""

    selection: str
    instruction: str
    before: str = ""
    after: str = ""
    language: str = ""
    path: str = ""
    snippets: tuple[Snippet, ...] = ()
    max_tokens: int = 0
    deadline_ms: int = 0
    model: str = ""
    decoding: DecodingParams = field(default_factory=DecodingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    id: str = field(default_factory=new_request_id)

    def __post_init__(self) -> None:
        _check_limits(self.max_tokens, self.deadline_ms, self.snippets)
        _check(bool(self.instruction.strip()), "instruction is empty: say what to change")
        _check(
            len(self.instruction) <= MAX_INSTRUCTION_CHARACTERS,
            f"instruction has {len(self.instruction)} characters: allowed are {MAX_INSTRUCTION_CHARACTERS}",
        )


def _check_limits(max_tokens: int, deadline_ms: int, snippets: tuple[Snippet, ...]) -> None:
    _check(0 <= max_tokens <= MAX_TOKENS_LIMIT, f"max_tokens is {max_tokens}: allowed is 0 to {MAX_TOKENS_LIMIT}")
    _check(deadline_ms >= 0, f"deadline_ms is {deadline_ms}: it cannot be negative")
    _check(len(snippets) <= MAX_SNIPPETS, f"{len(snippets)} snippets: allowed are {MAX_SNIPPETS}")


def check_stops(stop: tuple[str, ...]) -> None:
    """Refuse texts that cannot end an answer.

    Raises:
        InvalidRequest: too many, an empty one, or one that is too long.
    """
    _check(len(stop) <= MAX_STOPS, f"stop has {len(stop)} texts: allowed are {MAX_STOPS}")
    _check(
        all(1 <= len(text) <= MAX_STOP_CHARACTERS for text in stop),
        f"stop: each text has 1 to {MAX_STOP_CHARACTERS} characters",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmRequest:
    """Compute and keep the prompt of a request that is expected soon; no text is made.

    The instruction of an ``edit`` may still be being typed (:data:`UNKNOWN_INSTRUCTION`: nothing of it is known): the
    prompt is computed up to its end and no further.
    """

    completion: CompletionRequest | None = None
    edit: EditRequest | None = None

    def __post_init__(self) -> None:
        _check((self.completion is None) != (self.edit is None), "a warm-up names either a completion or an edit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of a request went, in milliseconds."""

    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    denoise_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer to a request. ``num_forwards`` is the NFE: model calls after the prompt was computed.

    ``num_prompt_tokens`` = ``num_reused_tokens`` (taken from the prefix cache) + ``num_computed_tokens``.
    ``notice`` is a remark for the user, for instance that a smaller model stood in for the one asked for.
    ``alternatives`` are other texts, the most probable first, all different from ``text`` and from each other; the
    figures do not count them.
    """

    id: str
    text: str
    finish_reason: FinishReason
    num_forwards: int = 0
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_reused_tokens: int = 0
    num_computed_tokens: int = 0
    timings: Timings = field(default_factory=Timings)
    model: str = ""
    policy: str = ""
    notice: str = ""
    alternatives: tuple[str, ...] = ()

    @property
    def tokens_per_forward(self) -> float:
        """Committed tokens per model call; 0 when no call was needed."""
        return self.num_tokens / self.num_forwards if self.num_forwards else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewFrame:
    """A snapshot of an answer under way: ``settled`` is final, ``unsettled`` is the draft that may still change."""

    id: str
    settled: str
    unsettled: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model of an engine. ``state``: ``ready``, ``loading``, ``not_loaded``, ``not_downloaded`` or ``failed``.

    ``context_tokens`` bounds prompt and answer together; 0 until the model is loaded. Over the wire it is told to those
    who ask for decoding reports.
    """

    name: str
    task: str
    state: str
    detail: str = ""
    memory_bytes: int = 0
    context_tokens: int = field(default=0, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary:
    """What a server does now, and did in the last ``window_s`` seconds for all its users together.

    Times are of answers as the engine counts them; ``cache_hit_rate`` is the share of prompt tokens that were reused.
    """

    num_active: int = 0
    num_queued: int = 0
    window_s: float = 0.0
    requests_per_s: float = 0.0
    tokens_per_s: float = 0.0
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    tokens_per_forward: float = 0.0
    cache_hit_rate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The state of an engine. ``status``: ``loading``, ``ready`` or ``failed``; ``notices`` are for the user.

    ``decoding`` says of each loaded model how it decodes, ``load`` what a server's users make it do; over the wire they
    are told to those who ask for them.
    """

    status: str
    version: str
    device: str
    dtype: str
    models: tuple[ModelStatus, ...] = ()
    memory_bytes: int = 0
    num_active: int = 0
    num_completed: int = 0
    num_forwards: int = 0
    uptime_ms: float = 0.0
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    notices: tuple[str, ...] = ()
    decoding: tuple[DecodingReport, ...] = field(default=(), metadata=OMIT_DEFAULT)
    load: LoadSummary | None = field(default=None, metadata=OMIT_DEFAULT)


class EngineClient(Protocol):
    """What answers requests: the engine itself, or a connection to one.

    Cancelling the awaiting task cancels the work: at most one further forward runs. All methods raise
    :class:`~diffusion_core.errors.UnmaskError` subclasses only (and ``asyncio.CancelledError``).
    """

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        ...

    def edit(self, request: EditRequest) -> AsyncIterator[PreviewFrame | Result]:
        """Stream preview frames, then exactly one :class:`Result` as the last item."""
        ...

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        ...

    async def health(self) -> Health:
        """The state of the engine."""
        ...

    async def aclose(self) -> None:
        """Release connections (and, for a local engine, this client's hold on it)."""
        ...
