"""The routes for other people's clients: what stands where, and what it takes and gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel

from diffusion_core.net.openai.about import list_models, show_health, show_model, show_props
from diffusion_core.net.openai.bodies import Body, ChatBody, CompletionsBody, InfillBody
from diffusion_core.net.openai.chat import chat
from diffusion_core.net.openai.completions import complete
from diffusion_core.net.openai.infill import infill
from diffusion_core.net.openai.json_exchange import JsonExchange
from diffusion_core.net.openai.paths import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    HEALTH_PATH,
    INFILL_PATH,
    MODEL_PATH,
    MODELS_PATH,
    PROPS_PATH,
)
from diffusion_core.net.openai.replies import (
    Chat,
    ChatChunk,
    Completion,
    Infill,
    InfillPiece,
    LlamaHealth,
    ModelCard,
    ModelList,
    Props,
)
from diffusion_core.net.openai.service import Service

Run = Callable[[Service, JsonExchange], Awaitable[None]]


@dataclass(frozen=True)
class JsonRoute:
    """A route, and what its description says: the body it takes, its answer, and the events of a streamed one.

    ``is_shaped``: the body may ask for fewer fields of the answer, and for a list of answers.
    """

    method: str
    path: str
    run: Run
    summary: str
    answer: type[BaseModel]
    body: type[Body] | None = None
    event: type[BaseModel] | None = None
    is_shaped: bool = False


ROUTES = (
    JsonRoute(
        "POST", COMPLETIONS_PATH, complete, "Text that goes on, or that fills a hole",
        answer=Completion, body=CompletionsBody, event=Completion,
    ),
    JsonRoute(
        "POST", CHAT_PATH, chat, "What the model says next in a conversation",
        answer=Chat, body=ChatBody, event=ChatChunk,
    ),
    JsonRoute(
        "POST", INFILL_PATH, infill, "Text that fills a hole, as llama-server has it",
        answer=Infill, body=InfillBody, event=InfillPiece, is_shaped=True,
    ),
    JsonRoute("GET", MODELS_PATH, list_models, "The models that are served", answer=ModelList),
    JsonRoute("GET", MODEL_PATH, show_model, "One model", answer=ModelCard),
    JsonRoute("GET", HEALTH_PATH, show_health, "Whether the model can answer, for llama-server", answer=LlamaHealth),
    JsonRoute("GET", PROPS_PATH, show_props, "What the model is, as llama-server has it", answer=Props),
)  # fmt: skip
