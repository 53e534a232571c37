"""Reading evaluation files and turning items into requests and programs."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from helpers.eval_sets import find_real_set, make_edit_item, make_hole, write_set

from diffusion_core.eval.dataset import DatasetError, read_dataset, sample_items
from diffusion_core.eval.editing import EditingOptions, InstructionKind, make_editing, measure_change
from diffusion_core.eval.infilling import InfillingOptions, make_infilling
from diffusion_core.eval.report import percentile
from diffusion_core.eval.sandbox import run_program


def test_plain_and_compressed_files_are_the_same(tmp_path: Path) -> None:
    rows = [make_hole(number) for number in range(3)]
    plain = read_dataset(write_set(tmp_path / "a.jsonl", rows))
    packed = read_dataset(write_set(tmp_path / "a.jsonl.gz", rows))
    assert [row.fields for row in plain.rows] == [row.fields for row in packed.rows] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2: is no JSON"),
        (b'{"a": 1}\n\n[1]\n', "line 3: is no JSON object"),
        (b'{"a": "\xff"}\n', "line 1: is not UTF-8"),
        (b"\n", "holds no items"),
        (gzip.compress(b'{"a": 1}\n', mtime=0)[:-6], "damaged or cut short"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_dataset(path)


def test_a_gz_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(b"{}\n")
    with pytest.raises(DatasetError, match="is no gzip file"):
        read_dataset(path)


def test_missing_and_wrong_fields_are_named(tmp_path: Path) -> None:
    rows = [make_hole(0), {**make_hole(1), "suffix": 3}]
    with pytest.raises(DatasetError, match=r"line 2: field 'suffix' is int"):
        make_infilling(read_dataset(write_set(tmp_path / "a.jsonl", rows)), InfillingOptions(), None, 0)
    with pytest.raises(DatasetError, match=r"line 1: field 'full_name' is missing"):
        make_editing(read_dataset(write_set(tmp_path / "b.jsonl", [{}])), EditingOptions(), None, 0)
    with pytest.raises(DatasetError, match="'Hole/1' occurs twice"):
        rows = [make_hole(1), make_hole(1)]
        make_infilling(read_dataset(write_set(tmp_path / "c.jsonl", rows)), InfillingOptions(), None, 0)


def test_a_sample_is_drawn_by_seed_and_keeps_the_order() -> None:
    items = list(range(50))
    assert sample_items(items, None, 0) == sample_items(items, 99, 0) == items
    drawn = sample_items(items, 10, 1)
    assert drawn == sorted(drawn) == sample_items(items, 10, 1) != sample_items(items, 10, 2)


def test_single_line_is_a_property_of_the_file(tmp_path: Path) -> None:
    single = read_dataset(write_set(tmp_path / "a.jsonl", [make_hole(0), make_hole(1)]))
    mixed_rows = [make_hole(0), make_hole(1, solution="    y = 1\n    x = a + y\n")]
    mixed = read_dataset(write_set(tmp_path / "b.jsonl", mixed_rows))
    span = read_dataset(write_set(tmp_path / "c.jsonl", [make_hole(0, solution="= a")]))
    (task, _) = make_infilling(single, InfillingOptions(), None, 0).tasks
    assert task.make_request().single_line is True
    assert task.read_answer("    x = a\n    more\n") == "    x = a\n"
    assert task.read_answer("    x = a") == "    x = a\n"
    (task, _) = make_infilling(mixed, InfillingOptions(), None, 0).tasks
    assert task.make_request().single_line is False
    assert task.read_answer("a\nb") == "a\nb"
    (task,) = make_infilling(span, InfillingOptions(), None, 0).tasks
    assert task.read_answer("= a\nb") == "= a"
    (task, _) = make_infilling(mixed, InfillingOptions(single_line=True), None, 0).tasks
    assert task.read_answer("a\nb") == "a\n"


def test_editing_asks_both_kinds(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "a.jsonl", [make_edit_item(1), make_edit_item(2)]))
    both = make_editing(dataset, EditingOptions(), None, 0)
    assert [task.task_id for task in both.tasks] == [
        "1_constant/descriptive", "1_constant/lazy", "2_constant/descriptive", "2_constant/lazy",
    ]  # fmt: skip
    lazy = make_editing(dataset, EditingOptions(kinds=(InstructionKind.LAZY,)), 1, 0)
    (task,) = lazy.tasks
    assert task.make_request().instruction == "set it"
    assert task.facts == {"kind": "lazy", "changed_lines": round(1 / 14, 4)}


def test_measured_change() -> None:
    assert measure_change("a\nb\nc\nd", "a\nb\nc\nd") == 0
    assert measure_change("a\nb\nc\nd", "a\nz\nc\nd") == 0.25
    assert measure_change("a\nb\nc\nd", "a\nb\nc\nd\ne\nf") == 0.5
    assert measure_change("", "a") == 1.0


def test_percentiles_are_measured_values() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(value) for value in range(1, 101)], 0.95) == 95.0
    assert percentile([7.0], 0.95) == 7.0


@pytest.mark.parametrize(
    ("name", "single_line"),
    [
        ("HumanEval-SingleLineInfilling.dev.jsonl.gz", True),
        ("HumanEval-MultiLineInfilling.dev.jsonl.gz", False),
        ("HumanEval-RandomSpanInfillingLight.dev.jsonl.gz", False),
    ],
)
async def test_solutions_of_the_real_holes_pass(name: str, single_line: bool) -> None:
    dataset = read_dataset(find_real_set(name))
    benchmark = make_infilling(dataset, InfillingOptions(), 6, 3)
    assert benchmark.settings["single_line"] is single_line
    solutions = {row.text("task_id"): row.text("canonical_solution") for row in dataset.rows}
    for task in benchmark.tasks:
        answer = task.read_answer(solutions[task.task_id])
        assert answer == solutions[task.task_id]
        assert (await run_program(task.render_program(answer))).passed
        assert not (await run_program(task.render_program("    raise ValueError\n"))).passed


async def test_references_of_the_real_edits_pass_and_their_originals_do_not() -> None:
    dataset = read_dataset(find_real_set("CanItEdit.dev.jsonl.gz"))
    benchmark = make_editing(dataset, EditingOptions(kinds=(InstructionKind.LAZY,)), 8, 1)
    befores = {row.text("full_name"): row.text("before") for row in dataset.rows}
    supported = 0
    for task in benchmark.tasks:
        if (await run_program(task.render_reference() or "")).passed:
            supported += 1
            before = befores[task.task_id.removesuffix("/lazy")]
            assert not (await run_program(task.render_program(before))).passed, task.task_id
    assert supported >= 4
