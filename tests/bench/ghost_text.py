"""Warm ghost text against transformers' generate, in one run: 300 tokens of context, 12 tokens of answer.

    python -m bench.ghost_text --keys 20 --out OUT.json

A function is typed character by character at the end of the context. For every key our engine and transformers'
``generate`` (same weights, dtype and threads) answer the same prompt in turn, so that noise hits both. Ours is the
engine as users have it: prefix cache, verified policy, lookup drafts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from bench.reference_model import load_reference

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import DEFAULT_MODEL, MIB, EngineConfig
from diffusion_core.engine.device import choose_dtype, resident_bytes
from diffusion_core.engine.loaded_model import assemble
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.requests import CompletionRequest

NUM_TOKENS = 12

CONTEXT = '''"""Accounts and transfers."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal


class InsufficientFunds(Exception):
    """The account holds less than what is to be taken."""


@dataclass
class Account:
    """A named account with a balance and a history of amounts."""

    owner: str
    balance: Decimal = Decimal(0)
    history: list[Decimal] = field(default_factory=list)

    def deposit(self, amount: Decimal) -> None:
        if amount <= 0:
            raise ValueError("the amount must be positive")
        self.balance += amount
        self.history.append(amount)

    def withdraw(self, amount: Decimal) -> None:
        if amount <= 0:
            raise ValueError("the amount must be positive")
        if amount > self.balance:
            raise InsufficientFunds(self.owner)
        self.balance -= amount
        self.history.append(-amount)


class Bank:
    """All accounts by owner."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def open(self, owner: str) -> Account:
        if owner in self._accounts:
            raise ValueError(f"{owner} has an account already")
        account = Account(owner)
        self._accounts[owner] = account
        return account

    '''
TYPED = "def transfer(self, source: str, target: str, amount: Decimal) -> None:\n        "
SUFFIX = "\n\n    def total(self) -> Decimal:\n        return sum(a.balance for a in self._accounts.values())\n"


def spread(values: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {"p50": median(values), "p95": quantiles(values, n=20)[18]}


async def measure(num_keys: int) -> dict[str, Any]:
    """Both answers for each typed key."""
    engine = AsyncEngine(EngineConfig(edit_model=DEFAULT_MODEL))
    engine.start()

    def request(num_typed: int) -> CompletionRequest:
        return CompletionRequest(
            prefix=CONTEXT + TYPED[:num_typed], suffix=SUFFIX, language="python", max_tokens=NUM_TOKENS,
            stop_at_scope=False,
        )  # fmt: skip

    await engine.complete(request(0))
    memory = resident_bytes()
    device = torch.device("cpu")
    dtype = choose_dtype(EngineConfig(), device)
    checkpoint = load_checkpoint(DEFAULT_MODEL, dtype=dtype, device=device)
    encoder = assemble(checkpoint, EngineConfig()).encoder
    reference: Any = load_reference(checkpoint.model)
    ours, theirs, forwards, computed, num_prompt = [], [], [], [], 0
    for num_typed in range(1, num_keys + 1):
        asked = request(num_typed)
        started = time.perf_counter()
        result = await engine.complete(asked)
        ours.append((time.perf_counter() - started) * 1000)
        forwards.append(result.num_tokens / max(result.num_forwards, 1))
        computed.append(result.num_computed_tokens)
        num_prompt = result.num_prompt_tokens
        ids = torch.tensor([encoder.encode_completion(asked, NUM_TOKENS).tokens])
        started = time.perf_counter()
        with torch.inference_mode():
            reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NUM_TOKENS, do_sample=False,
                               pad_token_id=0)  # fmt: skip
        theirs.append((time.perf_counter() - started) * 1000)
    await engine.aclose()
    return {
        "keys": num_keys, "prompt_tokens": num_prompt, "dtype": str(dtype), "threads": torch.get_num_threads(),
        "ours_ms": spread(ours), "transformers_ms": spread(theirs),
        "ratio_p50": median(theirs) / median(ours),
        "ratio_per_key_median": median(t / o for t, o in zip(theirs, ours, strict=True)),
        "tokens_per_forward": median(forwards), "computed_tokens": computed, "engine_rss_mib": memory / MIB,
    }  # fmt: skip


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = asyncio.run(measure(args.keys))
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
