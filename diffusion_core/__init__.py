"""Unmask's core: a block-diffusion engine for code, its server and its clients.

Importing this package imports nothing heavy: every public name is resolved when it is first used, and only the names
of the engine's inside need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint, save_checkpoint
    from diffusion_core.config import ClientConfig, EngineConfig, ServerConfig
    from diffusion_core.engine.engine import Engine
    from diffusion_core.engine.runner import AsyncEngine
    from diffusion_core.errors import (
        CheckpointError,
        Closed,
        ConfigError,
        ContextTooLong,
        DeadlineExceeded,
        EngineError,
        InvalidRequest,
        OutOfMemory,
        Overloaded,
        ProtocolMismatch,
        RequestCancelled,
        TransportError,
        Unauthorized,
        UnmaskError,
        Unreachable,
        Untrusted,
    )
    from diffusion_core.model.config import DiffusionConfig, ModelConfig
    from diffusion_core.model.kv_cache import KVCache
    from diffusion_core.model.transformer import Transformer
    from diffusion_core.net.client import HttpEngineClient
    from diffusion_core.net.launcher import LocalEngine, connect
    from diffusion_core.net.protocol import PROTOCOL_VERSION
    from diffusion_core.net.server import create_app
    from diffusion_core.requests import (
        CanvasCache,
        CompletionRequest,
        DecodingParams,
        EditRequest,
        EngineClient,
        FinishReason,
        Health,
        Policy,
        PreviewFrame,
        Result,
        SamplingParams,
        Snippet,
        WarmRequest,
    )
    from diffusion_core.sampling.block_decoder import BlockDecoder

_MODULES = {
    "checkpoints.load": ("Checkpoint", "load_checkpoint", "save_checkpoint"),
    "config": ("ClientConfig", "EngineConfig", "ServerConfig"),
    "engine.engine": ("Engine",),
    "engine.runner": ("AsyncEngine",),
    "errors": (
        "CheckpointError", "Closed", "ConfigError", "ContextTooLong", "DeadlineExceeded", "EngineError",
        "InvalidRequest", "OutOfMemory", "Overloaded", "ProtocolMismatch", "RequestCancelled", "TransportError",
        "Unauthorized", "UnmaskError", "Unreachable", "Untrusted",
    ),
    "model.config": ("DiffusionConfig", "ModelConfig"),
    "model.kv_cache": ("KVCache",),
    "model.transformer": ("Transformer",),
    "net.client": ("HttpEngineClient",),
    "net.launcher": ("LocalEngine", "connect"),
    "net.protocol": ("PROTOCOL_VERSION",),
    "net.server": ("create_app",),
    "requests": (
        "CanvasCache", "CompletionRequest", "DecodingParams", "EditRequest", "EngineClient", "FinishReason", "Health",
        "Policy",
        "PreviewFrame", "Result", "SamplingParams", "Snippet", "WarmRequest",
    ),
    "sampling.block_decoder": ("BlockDecoder",),
}  # fmt: skip

_HOMES = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "PROTOCOL_VERSION",
    "AsyncEngine",
    "BlockDecoder",
    "CanvasCache",
    "Checkpoint",
    "CheckpointError",
    "ClientConfig",
    "Closed",
    "CompletionRequest",
    "ConfigError",
    "ContextTooLong",
    "DeadlineExceeded",
    "DecodingParams",
    "DiffusionConfig",
    "EditRequest",
    "Engine",
    "EngineClient",
    "EngineConfig",
    "EngineError",
    "FinishReason",
    "Health",
    "HttpEngineClient",
    "InvalidRequest",
    "KVCache",
    "LocalEngine",
    "ModelConfig",
    "OutOfMemory",
    "Overloaded",
    "Policy",
    "PreviewFrame",
    "ProtocolMismatch",
    "RequestCancelled",
    "Result",
    "SamplingParams",
    "ServerConfig",
    "Snippet",
    "Transformer",
    "TransportError",
    "Unauthorized",
    "UnmaskError",
    "Unreachable",
    "Untrusted",
    "WarmRequest",
    "connect",
    "create_app",
    "load_checkpoint",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
