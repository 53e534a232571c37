"""What is served: OpenAI's list of models, and what llama-server says of itself."""

from __future__ import annotations

from collections.abc import Sequence

from diffusion_core.callers import Scope
from diffusion_core.errors import EngineError, Overloaded
from diffusion_core.net.openai.failures import ModelNotFound
from diffusion_core.net.openai.json_exchange import JsonExchange
from diffusion_core.net.openai.replies import (
    LlamaHealth,
    LlamaSettings,
    ModelCard,
    ModelList,
    ModelMeta,
    Props,
    fingerprint,
)
from diffusion_core.net.openai.service import Service
from diffusion_core.requests import ModelStatus


async def list_models(service: Service, exchange: JsonExchange) -> None:
    """``GET /v1/models``."""
    exchange.caller()
    cards = [_card(service, name, statuses) for name, statuses in (await service.models()).items()]
    await exchange.answer_json(ModelList(object="list", data=cards))


async def show_model(service: Service, exchange: JsonExchange) -> None:
    """``GET /v1/models/{id}``."""
    exchange.caller()
    models, name = await service.models(), exchange.path_parameter("id")
    if name not in models:
        raise ModelNotFound(f"the model is not served here: this server has {', '.join(sorted(models))}")
    await exchange.answer_json(_card(service, name, models[name]))


async def show_health(service: Service, exchange: JsonExchange) -> None:
    """``GET /health``, as llama-server has it."""
    exchange.caller()
    health = await service.health()
    if health.status == "failed":
        raise EngineError("the model could not be loaded")
    if health.status != "ready":
        raise Overloaded("Loading model")
    await exchange.answer_json(LlamaHealth(status="ok"))


async def show_props(service: Service, exchange: JsonExchange) -> None:
    """``GET /props``, as llama-server has it."""
    exchange.caller(Scope.COMPLETE)
    models = [status for statuses in (await service.models()).values() for status in statuses]
    main = next((status for status in models if status.task == "complete"), models[0])
    settings = LlamaSettings(n_ctx=main.context_tokens, temperature=0.0, top_p=1.0, n_predict=-1)
    await exchange.answer_json(
        Props(
            default_generation_settings=settings,
            total_slots=1,
            model_alias=main.name,
            model_path=main.name,
            build_info=fingerprint(),
        )
    )


def _card(service: Service, name: str, statuses: Sequence[ModelStatus]) -> ModelCard:
    tokens = max(status.context_tokens for status in statuses)
    meta = ModelMeta(n_ctx=tokens, state=statuses[0].state, tasks=[status.task for status in statuses])
    return ModelCard(id=name, object="model", created=service.born, owned_by="unmask", meta=meta)
