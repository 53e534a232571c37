"""The arithmetic of `bench.peers`, its command line, and how it reads a peer's answers. No peer is run."""

from __future__ import annotations

import argparse

import pytest
from bench.peers.__main__ import DEFAULT_PEERS, parse_arguments, parse_peers
from bench.peers.items import AnswerReader, Item, spread
from bench.peers.llama_cpp import PeerProcessError, parse_message
from bench.peers.summary import Row, compare, order_of_turn, summarize, summarize_peer
from helpers.tiny_models import tiny_tokenizer

from diffusion_core.requests import CompletionRequest
from diffusion_core.sampling.stop import LineRule


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


def test_all_peers_stand_beside_the_first() -> None:
    found = summarize({"unmask": OURS, "other": THEIRS})
    assert found["compared"] == "unmask" and found["times_faster_than"].keys() == {"other"}
    assert found["times_faster_than"]["other"] == compare(OURS, THEIRS)


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


def test_an_answer_ends_where_our_rules_end_it() -> None:
    tokenizer = tiny_tokenizer()
    request = CompletionRequest(prefix="x", max_tokens=8)
    item = Item("t", request, [1, 2], (LineRule(),))
    newline = tokenizer.encode("\n").ids[0]

    def read(tokens: list[int]) -> AnswerReader:
        reader = AnswerReader(item, tokenizer, frozenset({270}))
        for token in tokens:
            reader.feed(token)
        return reader

    line = tokenizer.encode("ab").ids
    assert (read([*line, newline, *line]).text, read([*line, newline, *line]).num_read) == ("ab", 3)
    assert (read([*line, 270, *line]).text, read([*line, 270]).is_complete) == ("ab", True)
    assert (read(line).text, read(line).is_complete) == ("ab", False)
    assert (read(line * 5).text, read(line * 5).is_complete) == ("abababab", True)


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
