"""Bodies of requests, field by field: what is used, what must be left out, and what makes no difference here.

A field that would change the answer is either used or refused. Those that llama-server has for sampling are taken, so
that its clients work, and named in the answer's header ``unmask-ignored`` where they would have mattered.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from diffusion_core.requests import MAX_SNIPPETS, MAX_STOP_CHARACTERS, MAX_STOPS, MAX_TOKENS_LIMIT, SamplingParams

MAX_CHOICES = 8
_MAX_PARTS = 1000
_MAX_NAMES = 64
_SEED_MASK = 2**63 - 1
_INT64 = 2**63


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# As JSON means it: 3.0 is the number 3, and some languages write it so.
WHOLE = BeforeValidator(_whole)
Integer = Annotated[int, WHOLE]


def _no_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("input should be false")
    return value


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


# Python takes 0, 0.0 and False for equal, JSON does not.
Off = Annotated[Literal[False], BeforeValidator(_no_number)]
Nought = Annotated[Literal[0], BeforeValidator(_no_truth)]
One = Annotated[Literal[1], BeforeValidator(_no_truth)]
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS_LIMIT), WHOLE]
SomeTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS_LIMIT), WHOLE]
Seed = Annotated[int, Field(ge=-_INT64, lt=_INT64), WHOLE]
Temperature = Annotated[float, Field(ge=0, le=5)]
Share = Annotated[float, Field(ge=0, le=1)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
StopTexts = Annotated[list[StopText], Field(max_length=MAX_STOPS)]
Zero = Annotated[float, Field(ge=0, le=0)]
Empty = Annotated[dict[str, Any], Field(max_length=0)]
EmptyList = Annotated[list[Any], Field(max_length=0)]
Label = Annotated[str, Field(max_length=4096)]
Labels = Annotated[list[Label], Field(max_length=_MAX_NAMES)]
Milliseconds = Annotated[int, Field(ge=0, le=86_400_000), WHOLE]


class Body(BaseModel):
    """What is common to all. ``unsupported`` fields may only say that they are not wanted."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    unsupported: ClassVar[frozenset[str]] = frozenset()

    model: Label | None = None
    stream: bool | None = None


class StreamOptions(BaseModel):
    """What a stream says besides the text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: Off | None = None


class Sampled(Body):
    """Fields of OpenAI's completions and chat alike."""

    unsupported = frozenset({"frequency_penalty", "presence_penalty", "logit_bias", "logprobs"})

    temperature: Temperature | None = Field(None, description="0 (the default) is greedy.")
    top_p: Share | None = None
    seed: Seed | None = None
    stop: StopText | StopTexts | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = Field(
        None, description=f"Answers to each prompt; to several prompts at most {MAX_CHOICES} in all."
    )
    stream_options: StreamOptions | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Empty | None = None
    # No difference to the answer.
    user: Label | None = None
    cache_prompt: bool | None = None
    id_slot: Integer | None = None
    # llama-server's; they matter only where a temperature is given.
    top_k: Integer | None = None
    min_p: Share | None = None
    samplers: Labels | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields that would have changed the answer of a llama-server."""
        return ignored_fields(self, self.temperature)


class CompletionsBody(Sampled):
    """``POST /v1/completions``. A prompt may hold the model's own fill-in-the-middle markers."""

    unsupported = Sampled.unsupported | {"echo", "best_of"}

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)] | None = None
    suffix: str | None = None
    max_tokens: Tokens | None = Field(None, description="0 computes the prompt and nothing else.")
    echo: Off | None = None
    logprobs: None = None
    best_of: One | None = None


class TextPart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text"]
    text: str


# The first wrong part says enough: a body has room for a thousand of them in each of a thousand messages.
TextParts = Annotated[list[TextPart], Field(max_length=_MAX_PARTS, fail_fast=True)]
Content = str | TextParts


def join_content(content: Content | None) -> str:
    """The text of a message or of a prediction."""
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


class Message(BaseModel):
    """What somebody said."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Content | None = None
    name: Label | None = None
    refusal: Label | None = None
    tool_calls: EmptyList | None = None


class Prediction(BaseModel):
    """A text that much of the answer is expected to be: it makes the answer faster, never another one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["content"]
    content: Content


class TextFormat(BaseModel):
    """The only format of an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]


class ChatBody(Sampled):
    """``POST /v1/chat/completions``. Where the last message is the assistant's, the answer goes on with it."""

    unsupported = Sampled.unsupported | {
        "tools", "functions", "function_call", "response_format", "audio", "modalities", "top_logprobs",
        "reasoning_effort", "verbosity", "web_search_options",
    }  # fmt: skip

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    # A conversation cannot be computed without an answer, so 0 would have to mean something else than elsewhere.
    max_tokens: SomeTokens | None = None
    max_completion_tokens: SomeTokens | None = None
    prediction: Prediction | None = None
    logprobs: Off | None = None
    top_logprobs: Nought | None = None
    tools: EmptyList | None = None
    functions: EmptyList | None = None
    function_call: Literal["none"] | None = None
    response_format: TextFormat | None = None
    audio: None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: None = None
    web_search_options: None = None
    # No difference to the answer: nothing is stored, and there are no tools to choose from.
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    metadata: Annotated[dict[str, str], Field(max_length=_MAX_NAMES)] | None = None
    store: Off | None = None
    service_tier: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None


class Extra(BaseModel):
    """A piece of another file."""

    model_config = ConfigDict(extra="ignore", strict=True)

    text: str
    filename: Label | None = None


class InfillBody(Body):
    """``POST /infill``, as llama-server has it."""

    unsupported = frozenset({"lora", "n_probs", "grammar", "json_schema"})

    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: Annotated[list[Extra], Field(max_length=MAX_SNIPPETS)] | None = None
    prompt: str | None = Field(None, description="The beginning of the middle, for instance of the cursor's line.")
    n_predict: Annotated[int, Field(ge=-1, le=MAX_TOKENS_LIMIT), WHOLE] | None = Field(
        None, description="0 computes the prompt and nothing else; -1 means the server's default."
    )
    temperature: Temperature | None = Field(None, description="0 (the default) is greedy.")
    top_p: Share | None = None
    seed: Seed | None = None
    stop: StopTexts | None = None
    n_indent: Annotated[int, Field(ge=0, le=1000), WHOLE] | None = None
    n_cmpl: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    t_max_predict_ms: Milliseconds | None = Field(
        None, description="The answer ends when its making took so long and it has a whole line."
    )
    response_fields: Labels | None = None
    lora: EmptyList | None = None
    n_probs: Nought | None = None
    grammar: Literal[""] | None = None
    json_schema: None = None
    # No difference to the answer.
    cache_prompt: bool | None = None
    id_slot: Integer | None = None
    t_max_prompt_ms: Milliseconds | None = None
    # They matter only where a temperature is given.
    top_k: Integer | None = None
    min_p: Share | None = None
    samplers: Labels | None = None
    repeat_penalty: float | None = None

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields that would have changed the answer of a llama-server."""
        return ignored_fields(self, self.temperature)


def ignored_fields(body: Body, temperature: float | None) -> tuple[str, ...]:
    """Fields of sampling that this server does not have, where something is sampled at all."""
    names = ("top_k", "min_p", "samplers", "repeat_penalty")
    return tuple(name for name in names if temperature and getattr(body, name, None) is not None)


def make_sampling(temperature: float | None, top_p: float | None, seed: int) -> SamplingParams:
    """How tokens are drawn; a ``top_p`` of 0 leaves the most probable one only."""
    if not temperature or top_p == 0:
        return SamplingParams()
    return SamplingParams(temperature=temperature, top_p=top_p or 1.0, seed=seed & _SEED_MASK)
