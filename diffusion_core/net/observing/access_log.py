"""One line about every request: who, what, how it ended, where the time went."""

from __future__ import annotations

import logging
from typing import Any

from diffusion_core.net.observing.observation import Observation
from diffusion_core.requests import Timings

# Asked every few seconds by watchers: only who looks closely wants to see them.
QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics", "/v1/health", "/v1/load", "/v1/session", "/health"})

logger = logging.getLogger(__name__)


def log_access(observation: Observation) -> None:
    """Write the line. A machine reads the same from the record's ``fields`` (:mod:`logs`)."""
    level = logging.DEBUG if observation.route in QUIET_ROUTES and observation.status < 500 else logging.INFO
    if logger.isEnabledFor(level):
        fields = access_fields(observation)
        logger.log(
            level,
            "%s %s",
            observation.request_id,
            describe_access(observation, fields),
            extra={"request_id": observation.request_id, "fields": fields},
        )


def access_fields(observation: Observation) -> dict[str, Any]:
    """What the line says, by name. Times are milliseconds; those of the engine are missing if it was not asked."""
    fields: dict[str, Any] = {
        "user": observation.user,
        "method": observation.method,
        "route": observation.route,
        "status": observation.status,
        "outcome": observation.outcome.value,
        "code": observation.code,
        "task": observation.task,
        "proxy_id": observation.proxy_id,
        "ms": round(observation.seconds * 1000, 1),
    }
    fields = {name: value for name, value in fields.items() if value != ""}
    if results := observation.results:
        timings = results[-1].timings
        fields |= {name: round(getattr(timings, name), 1) for name in Timings.__dataclass_fields__}
        for name in ("num_tokens", "num_forwards", "num_reused_tokens", "num_computed_tokens"):
            fields[name] = sum(getattr(result, name) for result in results)
        fields["finish_reason"] = results[-1].finish_reason.value
        fields["model"] = results[-1].model
    return fields


def describe_access(observation: Observation, fields: dict[str, Any]) -> str:
    """The line for people, without the request's id."""
    route = observation.route or "(no such path)"
    text = f"{observation.method} {route} {observation.status} in {fields['ms']:.0f} ms"
    text += f" for {observation.user}" if observation.user else ""
    if observation.outcome != "ok":
        text += f": {observation.outcome}" + (f" ({observation.code})" if observation.code else "")
    if "num_tokens" in fields:
        text += (
            f"; queue {fields['queue_ms']:.0f}, prefill {fields['prefill_ms']:.0f}, denoise {fields['denoise_ms']:.0f}"
            f" ms; {fields['num_tokens']} tokens in {fields['num_forwards']} forwards,"
            f" {fields['num_reused_tokens']} of {fields['num_reused_tokens'] + fields['num_computed_tokens']}"
            " prompt tokens reused"
        )
    return text
