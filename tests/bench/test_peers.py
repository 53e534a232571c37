"""The arithmetic of `bench.peers`, its command line, and how it reads a peer's answers. No peer is run."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
import torch
from bench.peers.__main__ import DEFAULT_PEERS, base_dtype, parse_arguments, parse_peers, read_options
from bench.peers.items import AnswerReader, make_item, spread
from bench.peers.llama_cpp import PeerProcessError, parse_message
from bench.peers.summary import Row, compare, keep_whole_turns, order_of_turn, summarize, summarize_peer
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import EngineConfig
from diffusion_core.engine.job import Job
from diffusion_core.engine.loaded_model import LoadedModel, assemble
from diffusion_core.requests import CompletionRequest

STOP = 270  # an id that no text has


def make_row(text: str, tokens: int, prefill_s: float, decode_s: float, *, prompt: int = 101) -> Row:
    return Row(
        task_id="t", text=text, tokens=tokens, prompt_tokens=prompt, prefill_s=prefill_s, decode_s=decode_s,
        total_s=prefill_s + decode_s, forwards=tokens // 2,
    )  # fmt: skip


OURS = [make_row("a", 10, 0.5, 0.5), make_row("b", 30, 1.0, 1.0, prompt=201), make_row("c", 20, 0.5, 0.5)]
# On the last item it was disturbed, and it wrote another text.
THEIRS = [make_row("a", 10, 1.0, 1.0), make_row("b", 30, 2.0, 2.0, prompt=201), make_row("x", 10, 9.0, 5.0)]


def test_rates_are_all_tokens_over_all_seconds() -> None:
    row = summarize_peer(OURS, OURS)
    assert (row["items"], row["tokens"], row["same_text"]) == (3, 60, 3)
    assert (row["tokens_per_second"], row["decode_tokens_per_second"]) == (15.0, 30.0)
    assert row["prefill_tokens_per_second"] == 200.0  # 100 + 200 + 100 tokens in 2 s
    assert (row["seconds_per_item_mean"], row["seconds_per_item_median"]) == (1.3333, 1.0)
    assert row["tokens_per_forward"] == 2.0
    assert summarize_peer(THEIRS, OURS)["same_text"] == 2


def test_a_median_over_items_is_not_moved_by_one_of_them() -> None:
    found = compare(OURS, THEIRS)
    assert found["tokens_per_second"] == {"run": 6.0, "item_median": 2.0}  # 15 / 2.5
    assert found["decode_tokens_per_second"] == {"run": 4.8, "item_median": 2.0}
    assert found["prefill_tokens_per_second"] == {"run": 6.0, "item_median": 2.0}
    assert found["seconds"] == {"run": 5.0, "item_median": 2.0}
    same = compare(OURS, OURS)
    assert all(value == 1.0 for ratio in same.values() for value in ratio.values())


def test_a_peer_that_writes_nothing_has_no_rate() -> None:
    silent = [make_row("", 0, 1.0, 0.1) for _ in OURS]
    found = compare(OURS, silent)
    assert found["tokens_per_second"] == {"run": None, "item_median": None}
    assert found["prefill_tokens_per_second"] == {"run": 2.0, "item_median": 2.0}
    assert summarize_peer(silent, OURS)["tokens_per_forward"] is None


def test_an_answer_that_came_with_the_first_forward_has_no_decoding_rate() -> None:
    at_once = [make_row("a", 10, 1.0, 0.0), *THEIRS[1:]]
    assert compare(OURS, at_once)["decode_tokens_per_second"]["item_median"] == 11.0  # of 2 and 20
    assert summarize_peer(at_once[:1], OURS[:1])["decode_tokens_per_second"] == 0.0


def test_all_peers_stand_beside_the_first() -> None:
    found = summarize({"unmask": OURS, "other": THEIRS})
    assert found["compared"] == "unmask" and found["times_faster_than"].keys() == {"other"}
    assert found["times_faster_than"]["other"] == compare(OURS, THEIRS)


def test_a_turn_that_was_not_finished_does_not_count() -> None:
    assert keep_whole_turns({"a": OURS, "b": THEIRS[:2]}) == {"a": OURS[:2], "b": THEIRS[:2]}


def test_every_peer_is_first_in_turn() -> None:
    names = ["a", "b", "c"]
    orders = [order_of_turn(names, turn) for turn in range(6)]
    assert all(sorted(order) == names for order in orders)
    assert sorted(order[0] for order in orders) == ["a", "a", "b", "b", "c", "c"]
    assert len({tuple(order) for order in orders}) == 6


def test_items_are_spread_over_the_file() -> None:
    assert spread(tuple(range(100)), 4) == [0, 25, 50, 75]
    assert spread(tuple(range(3)), 0) == spread(tuple(range(3)), 9) == [0, 1, 2]


def test_peers_of_the_command_line() -> None:
    assert parse_peers(DEFAULT_PEERS)[0] == "unmask"
    assert parse_peers("unmask:verified:float32, llama_cpp") == ["unmask:verified:float32", "llama_cpp"]
    assert read_options([]) == ("auto", "") and read_options(["verified"]) == ("verified", "")
    assert base_dtype(["llama_cpp", "unmask:verified:float32", "unmask"]) == "float32"
    assert base_dtype(["unmask", "unmask:verified:float32"]) == base_dtype(["llama_cpp"]) == ""
    args = parse_arguments(["--data", "x.jsonl", "--json", "o.json", "--peers", "llama_cpp", "--items", "5"])
    assert (args.peers, args.items, args.threads) == (["llama_cpp"], 5, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vllm", "unknown"),
        ("", "each peer once"),
        ("unmask,unmask", "each peer once"),
        ("unmask:fastest", "policies are auto"),
        ("llama_cpp:q8", "takes 0 options"),
        ("transformers:float32:2", "takes 1 options"),
    ],
)
def test_wrong_peers_are_named(text: str, words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        parse_peers(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    checkpoint = load_checkpoint(str(folder), dtype=torch.float32, device=torch.device("cpu"))
    return replace(assemble(checkpoint, EngineConfig()), stop_token_ids=frozenset({STOP}))


def test_an_answer_ends_where_our_rules_end_it(model: LoadedModel) -> None:
    request = CompletionRequest(prefix="def f(a):\n", suffix="    return a\n", max_tokens=8, single_line=True)
    item = make_item("t", request, model, 0)
    assert item.request.max_tokens == 128 and make_item("t", request, model, 8).request.max_tokens == 8
    item = make_item("t", request, model, 8)
    assert item.tokens == model.encoder.encode_completion(request, 8).tokens

    def read(text: str, *stop: int) -> tuple[str, bool]:
        reader = AnswerReader(item, model)
        for token in [*model.encoder.encode_text(text), *stop, *model.encoder.encode_text("zz")]:
            reader.feed(token)
        return reader.text, reader.is_complete

    assert read("ab\ncd") == ("ab", True)
    assert read("ab", STOP) == ("ab", True)
    assert read("ab") == ("abzz", False)
    assert read("abcdefghijk") == ("abcdefgh", True)


def test_the_rules_are_those_of_our_decoder(model: LoadedModel) -> None:
    """What the engine itself writes is read to the same end, a text that repeats itself included."""
    request = CompletionRequest(prefix="def f(a):\n    ", suffix="\n", max_tokens=60, stop_at_scope=False)
    item = make_item("t", request, model, 60)
    job = Job(request)
    job.prepare(model, 60)
    job.begin(model, "")
    is_complete = job.resume()
    while not is_complete:
        assert job.want is not None
        is_complete = job.resume(job.want.alone())
    sequence = job.sequence
    assert sequence is not None
    reader = AnswerReader(item, model)
    assert [reader.feed(token) for token in sequence.answer][-1]
    job.finish()
    assert reader.text == job.future.result().text
    loop = AnswerReader(make_item("t", request, model, 300), model)
    assert any(loop.feed(token) for token in model.encoder.encode_text("xy(z) " * 30)), "a loop is ended"
    assert loop.text == "xy(z) "


def test_lines_of_the_process() -> None:
    assert parse_message('{"token": 5, "ms": 1.5}\n') == {"token": 5, "ms": 1.5}
    for line, words in (
        ("", "ended"),
        ("llama: loading\n", "no JSON"),
        ("[1]\n", "no object"),
        ('{"error": "no memory"}\n', "no memory"),
        ('{"x": 1}\n', "unknown message"),
    ):
        with pytest.raises(PeerProcessError, match=words):
            parse_message(line)
