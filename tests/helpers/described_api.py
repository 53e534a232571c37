"""Requests made from a server's own OpenAPI description by schemathesis, and its answers checked against it."""

from __future__ import annotations

from collections import Counter

import schemathesis
from helpers.tiny_server import TOKEN, ServeProcess
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import seed as set_seed
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from diffusion_core.net.openai.bodies import MAX_CHOICES


def _wants_too_many(body: object) -> bool:
    """A bound on two fields together, of which a schema knows nothing: the description says it in words."""
    if not isinstance(body, dict):
        return False
    prompts, number = body.get("prompt"), body.get("n")
    return isinstance(prompts, list) and isinstance(number, int | float) and len(prompts) * number > MAX_CHOICES


def try_everything(server: ServeProcess, num_examples: int, seed: int = 0) -> Counter[str]:
    """Valid and invalid requests of every operation; the statuses that were seen.

    Raises:
        Exception: an answer is not as described: an unknown status, another content type, a body of another shape.
    """
    schema = schemathesis.openapi.from_dict(server.get("/openapi.json").json())
    schema.config.update(base_url=server.url)
    seen: Counter[str] = Counter()
    # Spelled as schemathesis spells it, which also asks without.
    authorization = {"Authorization": f"Bearer {TOKEN}"}
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        for mode in GenerationMode:
            if mode.is_negative and operation.method.upper() == "GET":
                continue

            @set_seed(seed)
            @settings(max_examples=num_examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                assume(not _wants_too_many(case.body))
                answer = case.call_and_validate(headers=authorization, timeout=60)
                seen[f"{case.method} {case.path} {answer.status_code}"] += 1

            ask()
    return seen
