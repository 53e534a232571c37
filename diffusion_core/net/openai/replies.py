"""Answers in the shapes of OpenAI and of llama-server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from diffusion_core.requests import FinishReason, Result
from diffusion_core.version import package_version

Finish = Literal["stop", "length"]


def finish_of(result: Result) -> Finish:
    """``length`` where the answer would have gone on: its budget or its time was spent."""
    return "length" if result.finish_reason in {FinishReason.LENGTH, FinishReason.DEADLINE} else "stop"


class Problem(BaseModel):
    """What is wrong. ``param`` is the path of the field, ``code`` the kind of error."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(BaseModel):
    """The answer to a request that failed."""

    error: Problem


class PromptDetails(BaseModel):
    """Tokens of the prompt whose keys and values were there already."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of prompts and answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


def count_usage(results: Sequence[Result], num_choices: int) -> Usage:
    """What ``results`` took: ``num_choices`` of them share a prompt, which counts once."""
    prompts = results[::num_choices]
    prompt, made = sum(each.num_prompt_tokens for each in prompts), sum(each.num_tokens for each in results)
    details = PromptDetails(cached_tokens=sum(each.num_reused_tokens for each in prompts))
    return Usage(
        prompt_tokens=prompt, completion_tokens=made, total_tokens=prompt + made, prompt_tokens_details=details
    )


class CompletionChoice(BaseModel):
    """One answer, or the next piece of it."""

    index: int
    text: str
    logprobs: None
    finish_reason: Finish | None


class Completion(BaseModel):
    """The answer to ``POST /v1/completions``, or one event of it. ``notice`` is a remark for the user."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    notice: str | None = None


class AnswerMessage(BaseModel):
    """What the assistant says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: None
    finish_reason: Finish


class Chat(BaseModel):
    """The answer to ``POST /v1/chat/completions``. ``notice`` is a remark for the user."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    notice: str | None = None


class Delta(BaseModel):
    """What is new in a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class DeltaChoice(BaseModel):
    """The next piece of one answer."""

    index: int
    delta: Delta
    logprobs: None
    finish_reason: Finish | None


class ChatChunk(BaseModel):
    """One event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[DeltaChoice]
    usage: Usage | None = None
    notice: str | None = None


class ModelMeta(BaseModel):
    """What llama-server's clients look for; ``tasks`` are those that the model answers by default."""

    n_ctx: int
    state: str
    tasks: list[str]


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["unmask"] = "unmask"
    meta: ModelMeta


class ModelList(BaseModel):
    """The answer to ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class LlamaTimings(BaseModel):
    """Milliseconds and tokens, of the prompt and of the answer."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


def time_of(result: Result) -> LlamaTimings:
    """The timings of an answer."""
    prompt, made = result.num_computed_tokens, result.num_tokens
    prompt_ms, made_ms = result.timings.prefill_ms, result.timings.denoise_ms
    return LlamaTimings(
        cache_n=result.num_reused_tokens,
        prompt_n=prompt,
        prompt_ms=prompt_ms,
        prompt_per_token_ms=prompt_ms / prompt if prompt else 0.0,
        prompt_per_second=1000 * prompt / prompt_ms if prompt_ms else 0.0,
        predicted_n=made,
        predicted_ms=made_ms,
        predicted_per_token_ms=made_ms / made if made else 0.0,
        predicted_per_second=1000 * made / made_ms if made_ms else 0.0,
    )


class Infill(BaseModel):
    """The answer to ``POST /infill``. ``truncated``: the text around the hole was cut to the model's context."""

    index: int
    content: str
    stop: bool
    model: str
    id_slot: int
    tokens_predicted: int
    tokens_evaluated: int
    tokens_cached: int
    truncated: bool
    has_new_line: bool
    stop_type: Literal["none", "eos", "limit", "word"]
    timings: LlamaTimings
    notice: str | None = None


class InfillPiece(BaseModel):
    """One event of a streamed infill."""

    index: int
    content: str
    stop: Literal[False]


class LlamaHealth(BaseModel):
    """The answer to ``GET /health``: the model can answer."""

    status: Literal["ok"]


class LlamaSettings(BaseModel):
    """Settings of a request that says nothing else. ``n_ctx`` bounds prompt and answer together, in tokens."""

    n_ctx: int
    temperature: float
    top_p: float
    n_predict: int


class Props(BaseModel):
    """The answer to ``GET /props``."""

    default_generation_settings: LlamaSettings
    total_slots: int
    model_alias: str
    model_path: str
    build_info: str


def fingerprint() -> str:
    """What made an answer."""
    return f"unmask-{package_version()}"
