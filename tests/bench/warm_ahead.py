"""What reading ahead of an acceptance saves: the first text after a suggestion was accepted, with it and without.

    python -m bench.warm_ahead --data FILE.jsonl.gz --items 8 --out OUT.json

At each item the engine completes a function, the completion is put into the text, and a short text is asked for behind
it. The same is done twice in turn, once with a warm-up of that second prompt in between, as the language server sends
it while a suggestion is being looked at. A comment at the top keeps the two apart in the prefix cache. Tokens of an
answer that is put into a text are seldom the tokens that the text then has, so the answer's own cache does not serve.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from diffusion_core.config import DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.eval.dataset import read_dataset, sample_items
from diffusion_core.requests import CompletionRequest, WarmRequest
from lsp_server.postprocess.leading_space import without_doubled_space

INDENT = "    "


async def measure(data: Path, num_items: int) -> dict[str, Any]:
    """Milliseconds and computed prompt tokens of the second request, by whether it was read ahead."""
    engine = AsyncEngine(EngineConfig(edit_model=DEFAULT_MODEL))
    engine.start()
    rows = sample_items(read_dataset(data).rows, num_items, seed=0)
    found: dict[bool, list[tuple[float, float, int]]] = {False: [], True: []}
    for row in rows:
        for is_warm in (False, True):
            prefix = f"# {is_warm}\n{row.text('prompt')}{INDENT}"
            suffix = "\n" + row.text("suffix")
            first = await engine.complete(
                CompletionRequest(prefix=prefix, suffix=suffix, language="python", max_tokens=48)
            )
            text = without_doubled_space(prefix, first.text).rstrip()
            second = CompletionRequest(prefix=prefix + text, suffix=suffix, language="python", max_tokens=4)
            if is_warm:
                await engine.warm(WarmRequest(completion=second))
            result = await engine.complete(second)
            timings = result.timings
            found[is_warm].append((timings.total_ms, timings.prefill_ms, result.num_computed_tokens))
    await engine.aclose()
    return {
        name: {
            "total_ms": median(total for total, _, _ in found[is_warm]),
            "prefill_ms": median(prefill for _, prefill, _ in found[is_warm]),
            "computed_tokens": median(computed for _, _, computed in found[is_warm]),
        }
        for name, is_warm in (("without", False), ("with", True))
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    report = asyncio.run(measure(args.data, args.items))
    args.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
