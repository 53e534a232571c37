"""pass@1 of answers written by ``bench.exactness``.

python -m bench.score_infilling --data FILE.jsonl.gz ANSWERS.jsonl [ANSWERS.jsonl ...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from diffusion_core.eval.dataset import read_dataset
from diffusion_core.eval.infilling import InfillingOptions, make_infilling
from diffusion_core.eval.sandbox import run_program


async def score(data: Path, answers: Path) -> tuple[int, int]:
    """Number of answers that pass, and number of answers."""
    texts = {row["task_id"]: row["verified_text"] for row in map(json.loads, answers.open(encoding="utf-8"))}
    benchmark = make_infilling(read_dataset(data), InfillingOptions(), None, 0)
    tasks = [task for task in benchmark.tasks if task.task_id in texts]
    passed = 0
    for task in tasks:
        verdict = await run_program(task.render_program(task.read_answer(texts[task.task_id])))
        passed += verdict.passed
    return passed, len(tasks)


def main() -> None:
    """Score each file of answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("answers", nargs="+", type=Path)
    args = parser.parse_args()
    for answers in args.answers:
        passed, total = asyncio.run(score(args.data, answers))
        print(f"{answers.name}: {passed} of {total} pass, pass@1 {passed / total:.4f}")


if __name__ == "__main__":
    main()
