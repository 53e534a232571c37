"""``python -m bench.peers``: see the package's own text."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import bench.peers
import torch
from bench.peers.hf import References, TransformersPeer
from bench.peers.items import Item, read_items
from bench.peers.llama_cpp import LlamaCppPeer, PeerProcessError
from bench.peers.ours import FAST_DLLM, Engines, UnmaskPeer
from bench.peers.peer import Peer, Unavailable
from bench.peers.summary import Row, keep_whole_turns, order_of_turn, summarize

from diffusion_core.config import DEFAULT_MODEL
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.errors import ConfigError, InvalidRequest, UnmaskError
from diffusion_core.eval.bench.machine import describe_machine, describe_torch
from diffusion_core.requests import DecodingParams, Policy

KINDS = ("unmask", "fast_dllm", "llama_cpp", "llama_cpp_lookup", "transformers", "transformers_lookup")
# Between two peers: threads of the one before may spin a while before they sleep.
PAUSE_S = 0.3
DEFAULT_PEERS = "unmask,unmask:autoregressive,fast_dllm,llama_cpp,llama_cpp_lookup,transformers,transformers_lookup"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench.peers", description=bench.peers.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, help="infilling or editing items")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="for all peers")
    parser.add_argument("--peers", type=parse_peers, default=parse_peers(DEFAULT_PEERS))
    parser.add_argument("--items", type=int, default=0, help="so many, spread over the file; 0: all")
    parser.add_argument("--max-tokens", type=int, default=0, help="longest answer; 0: as the engine chooses")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    return parser.parse_args(arguments)


def parse_peers(text: str) -> list[str]:
    """Names of peers, separated by commas: each known, none twice."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        kind, *options = name.split(":")
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"peer {name!r} is unknown: known are {', '.join(KINDS)}")
        most = {"unmask": 2, "fast_dllm": 0, "llama_cpp": 0, "llama_cpp_lookup": 0}.get(kind, 1)
        if len(options) > most:
            raise argparse.ArgumentTypeError(f"peer {name!r}: {kind} takes {most} options after colons")
        if kind == "unmask" and options and options[0] not in list(Policy):
            raise argparse.ArgumentTypeError(f"peer {name!r}: policies are {', '.join(Policy)}")
    if not names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError("name each peer once, separated by commas")
    return names


def make_peer(
    name: str, args: argparse.Namespace, engines: Engines, references: References, model: LoadedModel, context: int
) -> Peer:
    """The peer of that name.

    Raises:
        Unavailable: something is missing here; the message says what.
    """
    kind, *options = name.split(":")
    match kind:
        case "unmask":
            policy, dtype = read_options(options)
            return UnmaskPeer(name, engines.get(dtype), DecodingParams(policy=Policy(policy)))
        case "fast_dllm":
            return UnmaskPeer(name, engines.get(""), FAST_DLLM)
        case "llama_cpp" | "llama_cpp_lookup":
            lookup = kind.endswith("lookup")
            return LlamaCppPeer(
                name, args.model, model, threads=args.threads, context=context, uses_lookup=lookup
            )  # fmt: skip
        case _:
            reference = references.get(options[0] if options else "")
            return TransformersPeer(name, reference, model, uses_lookup=kind.endswith("lookup"))


def ask_all(peers: list[Peer], items: list[Item], model: LoadedModel) -> Iterator[tuple[str, Row]]:
    """Every peer on every item, in turns."""
    by_name = {peer.name: peer for peer in peers}
    for turn, item in enumerate(items):
        for name in order_of_turn(list(by_name), turn):
            time.sleep(PAUSE_S)
            answer = by_name[name].answer(item)
            # A closing line break is the engine's doing, not the model's: texts are compared without.
            text = answer.text.rstrip("\n") + "\n" if item.is_edit else answer.text
            yield name, Row(
                task_id=item.task_id, text=text, tokens=len(model.encoder.encode_text(text)),
                prompt_tokens=len(item.tokens), prefill_s=answer.prefill_s, decode_s=answer.decode_s,
                total_s=answer.total_s, forwards=answer.num_forwards,
            )  # fmt: skip


def open_peers(
    args: argparse.Namespace, engines: Engines, model: LoadedModel, items: list[Item], stack: ExitStack
) -> tuple[list[Peer], dict[str, str]]:
    """Peers that are there and answer, and why the others do not. Each answers an item once, unmeasured."""
    references = References(args.model)
    context = max(len(item.tokens) + item.request.max_tokens for item in items) + 64
    shortest = min(items, key=lambda item: len(item.tokens))
    peers: list[Peer] = []
    skipped: dict[str, str] = {}
    for name in args.peers:
        try:
            peer = make_peer(name, args, engines, references, model, context)
            stack.callback(peer.close)
            peer.answer(shortest)
        except (Unavailable, ConfigError, InvalidRequest) as error:
            skipped[name] = str(error)
            print(f"{name} is skipped: {error}", file=sys.stderr)
        else:
            peers.append(peer)
    return peers, skipped


def read_options(options: list[str]) -> tuple[str, str]:
    """Policy and dtype of ``unmask[:POLICY[:DTYPE]]``; an empty dtype is the environment's."""
    policy, dtype = [*options, *("auto", "")[len(options) :]]
    return policy, dtype


def base_dtype(names: list[str]) -> str:
    """The dtype of the first of our engines: prompts are made with its model, so that no further one is loaded."""
    ours = (name.split(":") for name in names)
    return next((read_options(options)[1] for kind, *options in ours if kind in ("unmask", "fast_dllm")), "")


def main() -> None:
    """Measure, write JSON, print a table."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    machine = describe_machine()
    ended_by = ""
    with ExitStack() as stack:
        engines = Engines(args.model, args.threads)
        stack.callback(engines.close)
        model = engines.load(base_dtype(args.peers))
        items = read_items(args.data, model, args.items, args.max_tokens)
        peers, skipped = open_peers(args, engines, model, items, stack)
        if not peers:
            raise SystemExit("no peer is there: " + "; ".join(skipped.values()))
        rows: dict[str, list[Row]] = {peer.name: [] for peer in peers}
        try:
            for name, row in ask_all(peers, items, model):
                rows[name].append(row)
                print(f"{row.task_id} {name}: {row.tokens} tokens in {row.total_s:.2f} s", file=sys.stderr)
        except (KeyboardInterrupt, UnmaskError, PeerProcessError) as error:  # what was measured counts
            ended_by = f"{type(error).__name__}: {error}"
            print(f"ended early by {ended_by}", file=sys.stderr)
        found = {
            "data": args.data.name, "model": args.model, "threads": args.threads, "ended_by": ended_by,
            "machine": machine | describe_torch("cpu") | {"load_average_after": describe_machine()["load_average"]},
            "about": {peer.name: peer.describe() for peer in peers}, "skipped": skipped,
        }  # fmt: skip
    rows = keep_whole_turns(rows)
    if not next(iter(rows.values())):
        raise SystemExit(f"no item was answered by every peer: {ended_by}")
    found |= summarize(rows) | {"rows": {name: [vars(row) for row in answers] for name, answers in rows.items()}}
    args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print_table(found)


def print_table(found: dict[str, Any]) -> None:
    """What the table in EXPERIMENTS.md holds."""
    print(f"| {found['model']}, {found['threads']} threads | tokens/s | decode tokens/s | prefill tokens/s | s/item | "
          f"tokens/forward | same text | {found['compared']} is faster by: run, median item |")  # fmt: skip
    print("|---" * 8 + "|")
    for name, row in found["peers"].items():
        times = found["times_faster_than"].get(name)
        seconds = f"{times['seconds']['run']:.2f}, {times['seconds']['item_median']:.2f}" if times else ""
        print(f"| {name} | {row['tokens_per_second']:.1f} | {row['decode_tokens_per_second']:.1f} | "
              f"{row['prefill_tokens_per_second']:.0f} | {row['seconds_per_item_median']:.2f} | "
              f"{row['tokens_per_forward'] or '-'} | {row['same_text']}/{row['items']} | {seconds} |")  # fmt: skip


if __name__ == "__main__":
    main()
