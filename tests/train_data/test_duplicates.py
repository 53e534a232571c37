"""Copies and evaluation texts are kept out."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from helpers.eval_sets import make_hole, write_set
from helpers.source_trees import make_module
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.errors import ConfigError
from train.data.decontaminate import RUN_TOKENS, find_eval_files, index_eval_files
from train.data.deduplicate import DedupConfig, deduplicate
from train.data.token_runs import hash_runs, split_tokens

WORDS = st.lists(st.sampled_from(["a", "b", "(", ")", "x1", "é"]), max_size=30)


def make_program(seed: int, num_tokens: int) -> str:
    generator = random.Random(seed)
    return " ".join(f"name_{generator.randrange(10_000)}" for _ in range(num_tokens))


def test_exact_and_near_copies_go_and_the_first_stays() -> None:
    text = make_module("alpha", 30)
    near = text.replace("round(total_alpha, 7)", "total_alpha")
    texts = [text, make_module("beta", 30), text.replace("\n", "\n\n"), near, make_module("gamma", 30)]
    result = deduplicate(texts, DedupConfig())
    assert (result.kept, result.num_exact, result.num_near) == ((0, 1, 4), 1, 1)


def test_empty_and_short_texts_are_handled() -> None:
    assert deduplicate(["", "x", "", "y = 1"], DedupConfig()).kept == (0, 1, 3)
    assert deduplicate([], DedupConfig()).kept == ()


@given(WORDS, WORDS, st.integers(1, 6))
def test_equal_runs_have_equal_hashes_and_other_runs_do_not(left: list[str], right: list[str], length: int) -> None:
    runs = {}
    for tokens in (left, right):
        hashes = hash_runs(tokens, length)
        assert len(hashes) == max(0, len(tokens) - length + 1)
        for place, value in enumerate(hashes.tolist()):
            run = tuple(tokens[place : place + length])
            assert runs.setdefault(run, value) == value
    assert len(set(runs.values())) == len(runs)


def test_white_space_and_rulers_do_not_count() -> None:
    assert split_tokens("a  =\tf( x )\n#-----\n") == ["a", "=", "f", "(", "x", ")", "#", "-----"]


@pytest.mark.parametrize(("shared", "is_found"), [(RUN_TOKENS, True), (RUN_TOKENS - 1, False)])
def test_a_run_of_fifty_tokens_is_found_and_one_of_forty_nine_is_not(
    tmp_path: Path, shared: int, is_found: bool
) -> None:
    program = make_program(1, 200)
    write_set(tmp_path / "a.jsonl.gz", [{"prompt": program, "tests": ["assert f(1) == 2"]}])
    index = index_eval_files(find_eval_files(tmp_path))
    piece = " ".join(program.split()[60 : 60 + shared])
    text = f"{make_program(2, 80)}\n{piece.replace(' ', '    ')}\n{make_program(3, 80)}"
    assert index.contains_run(text) == is_found
    assert not index.contains_run("") and not index.contains_run(make_program(4, 300))


def test_a_run_across_prompt_and_solution_is_found(tmp_path: Path) -> None:
    words = make_program(5, 90).split()
    hole = make_hole(1) | {"prompt": " ".join(words[:30]) + "\n", "canonical_solution": " ".join(words[30:60]) + "\n",
                           "suffix": " ".join(words[60:])}  # fmt: skip
    write_set(tmp_path / "a.jsonl", [hole])
    index = index_eval_files(find_eval_files(tmp_path))
    assert index.contains_run(" ".join(words[5:65]))


def test_short_items_are_found_whole(tmp_path: Path) -> None:
    """As MBPP has them: tests of one line each, a solution shorter than a run."""
    words = make_program(7, 200).split()
    tests = [" ".join(words[place : place + 20]) for place in (0, 20, 40)]
    code, tiny = " ".join(words[100:130]), " ".join(words[140:150])
    write_set(tmp_path / "a.jsonl", [{"text": "Write a function.", "code": code, "test_list": tests}, {"code": tiny}])
    index = index_eval_files(find_eval_files(tmp_path))
    assert index.contains_run("\n".join(tests)) and not index.contains_run(" ".join(tests[:2]))
    around = make_program(8, 60), make_program(9, 60)
    assert index.contains_run(f"{around[0]}\n{code}\n{around[1]}")
    assert not index.contains_run(f"{around[0]}\n{' '.join(code.split()[:-1])}\n{around[1]}")
    assert not index.contains_run(f"{around[0]}\n{tiny}\n{around[1]}"), "too short to be anybody's own"
    assert index.contains_run("a function.\n" + code + "\n" + " ".join(tests[0].split()[:18]))


def test_what_fills_a_hole_is_no_whole_solution(tmp_path: Path) -> None:
    line = " ".join(make_program(10, 60).split()[:25])
    write_set(tmp_path / "a.jsonl", [make_hole(1) | {"canonical_solution": line}])
    assert not index_eval_files(find_eval_files(tmp_path)).contains_run(f"{line}\n{make_program(11, 80)}")


def test_nested_fields_are_indexed(tmp_path: Path) -> None:
    program = make_program(6, 60)
    write_set(tmp_path / "a.jsonl", [{"tests": {"cases": [["x", program]]}, "id": 3}])
    assert index_eval_files(find_eval_files(tmp_path)).contains_run(program)


def test_without_evaluation_files_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_EVAL_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="no evaluation files"):
        find_eval_files(None)
    (tmp_path / "a.jsonl").write_text("{broken\n")
    with pytest.raises(ConfigError, match=r"a\.jsonl cannot be read"):
        index_eval_files(find_eval_files(None))


def test_the_index_of_nothing_finds_nothing(tmp_path: Path) -> None:
    write_set(tmp_path / "a.jsonl", [{"prompt": "short"}])
    index = index_eval_files(find_eval_files(tmp_path))
    assert index.runs.dtype == np.uint64 and not index.contains_run(make_program(1, 100))
