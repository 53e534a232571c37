"""pass@1 of infilling through a real language server, against the engine's bare answer to the same prompt.

    python -m bench.infilling_through_lsp --data FILE.jsonl.gz --limit 20 --out OUT.json

Each hole of whole lines becomes a document with an empty line at the hole, any other one with the cursor inside its
line; an editor opens it, asks for ghost text and accepts it. The bare answer is the engine's text for the very prefix
and suffix that the language server would send, of single-line files its first line only, of others without the
engine's scope rule. So the two differ by the language server alone: its window, its gate, its filters and its stop at
the end of the scope. What they make worse or better is listed item by item. Both use one local engine with the default
model; nothing is trained or cached between the two beyond the engine's prefix cache, which changes no text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from helpers.lsp_client import EditorClient, open_editor

from diffusion_core.config import ClientConfig
from diffusion_core.eval.ask import wait_ready
from diffusion_core.eval.dataset import read_dataset
from diffusion_core.eval.infilling import InfillingOptions, InfillingTask, make_infilling
from diffusion_core.eval.sandbox import run_program
from diffusion_core.net.launcher import connect
from diffusion_core.requests import CompletionRequest, EngineClient

SETTINGS: dict[str, Any] = {"deadlineMs": 120_000, "warmAhead": False, "alternatives": 1}


async def bare_answer(client: EngineClient, task: InfillingTask) -> str:
    """The document with the engine's text."""
    request = CompletionRequest(
        prefix=task.prompt, suffix=rest_of(task), language="python", single_line=task.single_line,
        stop_at_scope=task.single_line, path="hole.py",
    )  # fmt: skip
    return f"{task.prompt}{(await client.complete(request)).text}{rest_of(task)}"


def rest_of(task: InfillingTask) -> str:
    """What stands behind the cursor."""
    return ("\n" if task.whole_lines else "") + task.suffix


async def accepted_answer(editor: EditorClient, task: InfillingTask, number: int) -> str:
    """The document after its ghost text was accepted; as it is if there is none."""
    uri = f"file:///bench/{number}/hole.py"
    editor.open(task.prompt + rest_of(task), uri=uri)
    items = await editor.inline(task.prompt.count("\n"), len(task.prompt.rsplit("\n", 1)[-1]), uri=uri, invoked=True)
    if items:
        editor.buffers[uri].apply([{"range": items[0]["range"], "newText": items[0]["insertText"]}])
    editor.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
    return editor.buffers[uri].text


async def passes(task: InfillingTask, document: str) -> bool:
    """Whether the function in a document passes its test."""
    verdict = await run_program(f"{document}\n{task.test}\ncheck({task.entry_point})\n")
    return verdict.passed


async def measure(data: Path, limit: int | None, seed: int) -> dict[str, Any]:
    """Both answers to each hole, and what became of them."""
    benchmark = make_infilling(read_dataset(data), InfillingOptions(), limit, seed)
    tasks = [task for task in benchmark.tasks if isinstance(task, InfillingTask)]
    multi_line = "never" if tasks[0].single_line else "always"
    client = connect(ClientConfig())
    items: list[dict[str, Any]] = []
    try:
        await wait_ready(client)
        async with open_editor(env={"UNMASK_STATE_DIR": os.environ["UNMASK_STATE_DIR"]}) as editor:
            await editor.initialize({"completion": {**SETTINGS, "multiLine": multi_line}})
            await editor.wait_for_status("ready", timeout_s=120)
            for number, task in enumerate(tasks):
                bare = await bare_answer(client, task)
                accepted = await accepted_answer(editor, task, number)
                item = {"task_id": task.task_id, "bare": await passes(task, bare), "differs": bare != accepted}
                item["through"] = item["bare"] if bare == accepted else await passes(task, accepted)
                items.append(item)
            reasons = (await editor.execute("unmask.status"))["reasons"]
            await editor.shut_down()
    finally:
        await client.stop()  # type: ignore[attr-defined]
        await client.aclose()
    kinds = Counter((item["bare"], item["through"]) for item in items)
    return {
        "benchmark": data.name, "n": len(items), "num_differ": sum(i["differs"] for i in items),
        "bare_pass_at_1": sum(i["bare"] for i in items) / len(items),
        "through_pass_at_1": sum(i["through"] for i in items) / len(items),
        "num_better": kinds[False, True], "num_worse": kinds[True, False], "dropped": reasons, "items": items,
    }  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        os.environ["UNMASK_STATE_DIR"] = state  # an engine of its own, ended with the measurement
        report = asyncio.run(measure(args.data, args.limit, args.seed))
    args.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "items"}))


if __name__ == "__main__":
    main()
