"""Two tenants ask in turns, each with secrets of its own in its prompts: none may reach the other.

    python -m bench.canaries --requests 10000

What could cross over are drafts and kept keys and values. Every answer, preview and alternative is searched for the
other tenant's secrets (previews of edits do show one's own, so the search finds what is there), every answer is
compared with that of an engine that knows nobody else, and kept prompts are counted by space: tenants ask the very same
public prompts, and none may find the other's.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.callers import OWNER, Caller
from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.job import Job
from diffusion_core.requests import CompletionRequest, EditRequest, PreviewFrame, Snippet

TENANTS = {name: replace(OWNER, user=name, space=name) for name in ("ada", "ben")}
NUM_SECRETS = 8
AT_ONCE = 12
PUBLIC = [f"def public_{n}(a, b):\n    total = a + b * {n}\n    return " for n in range(4)]


def secret_of(tenant: str, number: int) -> str:
    """A text that nothing but this tenant's prompts contains."""
    return f"{tenant}_{random.Random(f'{tenant}{number}').getrandbits(64):016x}"


@dataclass
class Findings:
    """What was seen. ``leaks`` names where a secret of another tenant was found."""

    num_requests: int = 0
    num_texts: int = 0
    leaks: list[str] = field(default_factory=list)
    num_different: int = 0
    crossings: list[str] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    repeated_secrets: int = 0

    @property
    def failures(self) -> list[str]:
        """What must hold and did not."""
        found = [*self.leaks, *self.crossings]
        if self.num_different:
            found.append(f"{self.num_different} answers are not those of an engine without the other tenant")
        found += [f"no kept prompt of {name} was ever reused" for name in TENANTS if not self.hits[name]]
        return found


@dataclass
class _Asked:
    tenant: str
    request: CompletionRequest | EditRequest
    job: Job
    frames: list[PreviewFrame]


class Tenants:
    """Asks one engine on behalf of all, and checks what comes back. ``reference`` answers are made tenant by tenant."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self._engine = engine
        self._draw = random.Random(seed)
        self.answers: dict[tuple[str, str], str] = {}
        self.findings = Findings()

    def run(self, num_requests: int, tenants: dict[str, Caller]) -> None:
        """``num_requests`` requests, some at a time."""
        under_way: list[_Asked] = []
        for _ in range(num_requests):
            tenant = self._draw.choice(list(tenants))
            under_way.append(self._ask(tenant, tenants[tenant]))
            if len(under_way) >= AT_ONCE:
                self._check(under_way.pop(self._draw.randrange(len(under_way))))
        for asked in under_way:
            self._check(asked)

    def _ask(self, tenant: str, caller: Caller) -> _Asked:
        request, frames = make_request(tenant, self._draw), list[PreviewFrame]()
        return _Asked(tenant, request, self._engine.submit(request, frames.append, caller=caller), frames)

    def _check(self, asked: _Asked) -> None:
        result = asked.job.future.result(timeout=120)
        found, name = self.findings, describe(asked.request)
        texts = [result.text, *result.alternatives, *(frame.settled + frame.unsettled for frame in asked.frames)]
        found.num_requests += 1
        found.num_texts += len(texts)
        for other in TENANTS:
            for number in range(NUM_SECRETS):
                if any(secret_of(other, number) in text for text in texts):
                    if other == asked.tenant:
                        found.repeated_secrets += 1
                    else:
                        found.leaks.append(f"{name} of {asked.tenant} shows a secret of {other}")
        found.hits[asked.tenant] += result.num_reused_tokens > 0
        expected = self.answers.setdefault((asked.tenant, name), result.text)
        found.num_different += expected != result.text


def make_request(tenant: str, draw: random.Random) -> CompletionRequest | EditRequest:
    """One of a few dozen requests of a tenant; those of ``PUBLIC`` are the same for all tenants."""
    number = draw.randrange(NUM_SECRETS)
    secret = secret_of(tenant, number)
    line = f'token = "{secret}"\n'
    match draw.randrange(5):
        case 0:
            return CompletionRequest(prefix=draw.choice(PUBLIC), stop_at_scope=False, max_tokens=6)
        case 1:
            return CompletionRequest(prefix=line * 3 + 'token = "', suffix=line, stop_at_scope=False, max_tokens=8)
        case 2:
            return CompletionRequest(
                prefix=line + "x = ", last_suggestion=secret, num_alternatives=2, stop_at_scope=False, max_tokens=6
            )
        case 3:
            snippet = Snippet(path="a.py", text=line)
            return CompletionRequest(prefix="token = ", snippets=(snippet,), stop_at_scope=False, max_tokens=6)
        case _:
            return EditRequest(selection=line, instruction=f"rename {secret}", max_tokens=8)


def describe(request: CompletionRequest | EditRequest) -> str:
    """The same for equal requests."""
    if isinstance(request, EditRequest):
        return f"edit {request.selection} {request.instruction}"
    return f"completion {request.prefix} {request.suffix} {request.last_suggestion} {request.snippets}"


def run(num_requests: int, folder: Path, seed: int = 0, tenants: dict[str, Caller] = TENANTS) -> Findings:
    """All of it. The reference is made first: each tenant alone, in an engine of its own."""
    model = str(save_tiny_checkpoint(folder / "model"))
    config = EngineConfig(model=model, edit_model=model, dtype="float32", max_context_tokens=2048, num_threads=1)
    answers: dict[tuple[str, str], str] = {}
    for name, caller in tenants.items():
        engine = Engine(config)
        engine.start()
        alone = Tenants(engine, seed)
        alone.run(min(num_requests, 200), {name: caller})
        answers |= alone.answers
        engine.close()
    engine = Engine(config)
    engine.start()
    both = Tenants(engine, seed + 1)
    both.answers = answers
    find_crossings(engine, both.findings, tenants)
    both.run(num_requests, tenants)
    engine.close()
    return both.findings


def find_crossings(engine: Engine, found: Findings, tenants: dict[str, Caller]) -> None:
    """Each public prompt once by each tenant, one after the other: nobody may find what the other has computed."""
    for prefix in PUBLIC:
        for name, caller in tenants.items():
            request = CompletionRequest(prefix="# asked twice\n" + prefix, stop_at_scope=False, max_tokens=4)
            first = engine.submit(request, caller=caller).future.result(timeout=120)
            again = engine.submit(request, caller=caller).future.result(timeout=120)
            # Prompts of the same tenant begin alike: that much may be there already.
            if name != next(iter(tenants)) and prefix == PUBLIC[0] and first.num_reused_tokens:
                found.crossings.append(f"{name} found a prompt that only others had asked")
            if not again.num_reused_tokens:
                found.crossings.append(f"{name} did not find its own prompt")


def main() -> None:
    """Run and print what was found; exit code 1 if anything crossed over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(args.requests, Path(folder), args.seed)
    report: dict[str, Any] = {
        "requests": found.num_requests,
        "texts": found.num_texts,
        "own_secrets_repeated": found.repeated_secrets,
        "hits": dict(found.hits),
        "failures": found.failures,
    }
    print(json.dumps(report, indent=2))
    raise SystemExit(1 if found.failures else 0)


if __name__ == "__main__":
    main()
