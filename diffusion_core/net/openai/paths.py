"""Paths of the routes for other people's clients."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor

COMPLETIONS_PATH = "/v1/completions"
CHAT_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"
MODEL_PATH = "/v1/models/{id}"
INFILL_PATH = "/infill"
HEALTH_PATH = "/health"
PROPS_PATH = "/props"
DESCRIPTION_PATH = "/openapi.json"

# Methods and paths of all of them; names of models may be paths.
ALL_PATHS = (
    ("POST", COMPLETIONS_PATH),
    ("POST", CHAT_PATH),
    ("POST", INFILL_PATH),
    ("GET", MODELS_PATH),
    ("GET", MODEL_PATH),
    ("GET", HEALTH_PATH),
    ("GET", PROPS_PATH),
    ("GET", DESCRIPTION_PATH),
)
_WHOLE = frozenset({COMPLETIONS_PATH, CHAT_PATH, MODELS_PATH, INFILL_PATH, HEALTH_PATH, PROPS_PATH, DESCRIPTION_PATH})


class _Name(Convertor[str]):
    """Any text: Starlette's own ``path`` ends at a line break."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _Name())


def is_json_path(path: str) -> bool:
    """Whether a client that asks for ``path`` reads JSON, even where it may not enter."""
    return path in _WHOLE or path.startswith(MODELS_PATH + "/")
