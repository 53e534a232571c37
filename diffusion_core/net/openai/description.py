"""``GET /openapi.json``: the JSON routes as an OpenAPI 3.1 document, made of the very classes that check and answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from diffusion_core.net.openai.json_exchange import DONE
from diffusion_core.net.openai.replies import Failure
from diffusion_core.net.openai.routes import JsonRoute
from diffusion_core.version import package_version

_JSON, _EVENTS = "application/json", "text/event-stream"
_FAILURES = {
    "400": "The request can never succeed as it is; the message names the field.",
    "401": "The bearer token is missing or wrong.",
    "403": "The token does not allow this.",
    "404": "The model is not served here.",
    "429": "The user's own limit is reached.",
    "500": "The engine failed.",
    "503": "Too much is queued, or the model is still loading: try again after Retry-After.",
}
_REFERENCES = "#/components/schemas/{model}"


def describe_routes(routes: Sequence[JsonRoute]) -> bytes:
    """The document."""
    inputs: list[type[BaseModel]] = [route.body for route in routes if route.body]
    outputs: list[type[BaseModel]] = [
        Failure,
        *(route.answer for route in routes),
        *(route.event for route in routes if route.event),
    ]
    wanted: list[tuple[type[BaseModel], Any]] = [
        *((model, "validation") for model in dict.fromkeys(inputs)),
        *((model, "serialization") for model in dict.fromkeys(outputs)),
    ]
    names, definitions = models_json_schema(wanted, ref_template=_REFERENCES)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, names, definitions["$defs"])
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Unmask", "version": package_version()},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }
    return json.dumps(document).encode()


def _operation(route: JsonRoute, names: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = names[route.answer, "serialization"]
    if route.is_shaped:
        some = {"type": "object", "properties": definitions[route.answer.__name__]["properties"]}
        schema = {"anyOf": [schema, some, {"type": "array", "items": {"anyOf": [schema, some]}}]}
    answer: dict[str, Any] = {_JSON: {"schema": schema}}
    if route.event:
        kinds = dict.fromkeys((route.event, route.answer, Failure))
        answer[_EVENTS] = {"schema": _event([names[kind, "serialization"] for kind in kinds])}
    failed = {_JSON: {"schema": names[Failure, "serialization"]}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.run.__name__,
        "responses": {
            "200": {"description": "The answer.", "content": answer},
            **{status: {"description": text, "content": failed} for status, text in _FAILURES.items()},
        },
    }
    if route.body:
        operation["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": names[route.body, "validation"]}},
        }
    if "{id}" in route.path:
        operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation


def _event(kinds: Sequence[Any]) -> dict[str, Any]:
    """One event of a stream: OpenAPI before 3.2 has no word for streams, and tools read its schema so."""
    payload = {"type": "string", "contentMediaType": _JSON, "contentSchema": {"anyOf": list(kinds)}}
    data = {"anyOf": [{"const": DONE.decode()}, payload]}
    return {"type": "object", "description": "An event.", "properties": {"data": data}, "required": ["data"]}
