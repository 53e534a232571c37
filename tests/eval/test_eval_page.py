"""`unmask eval report` from the folders of real runs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.answering_engine import EngineServer
from helpers.eval_formats import exercism_row, humaneval_row, mbxp_row, naturalcodebench_row
from helpers.eval_sets import find_paper, make_edit_item, write_set
from helpers.unmask_process import Unmask

from diffusion_core.eval.page.collect import PageError, collect, interval
from diffusion_core.eval.page.paper import make_tables, read_paper
from diffusion_core.eval.page.render import write_page

VOID = {"meta", "br", "path", "use", "line"}


class Reader(HTMLParser):
    """Tables as lists of rows of text; addresses that the page would fetch; tags that were not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.fetched: list[str] = []
        self.headings: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in {"src", "srcset", "data", "action"}]
        self.fetched += [
            value or "" for name, value in attrs if name.endswith("href") and not (value or "").startswith("#")
        ]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data
        if self._open and self._open[-1] in {"h1", "h2", "h3", "summary"}:
            self.headings.append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert reader._open == []
    return reader


@pytest.fixture
def runs(unmask: Unmask, server: EngineServer, tmp_path: Path) -> Path:
    """Results of HumanEval by two policies, exercises and edits, all by the command."""
    folder = tmp_path / "runs"
    folder.mkdir()
    holes = [humaneval_row(number) for number in range(4)]
    exercises = [exercism_row("a"), exercism_row("b"), exercism_row("c")]
    right, wrong = "def add(a):\n    return a + 1\n", "def add(a):\n    return 0\n"
    edits = [make_edit_item(1), make_edit_item(2, library="no_such_library")]
    answers = {row["prompt"]: row["canonical_solution"] for row in holes[:3]}
    answers |= {
        exercises[0]["stub"]: right,
        exercises[1]["stub"]: wrong,
        wrong: right,
        edits[0]["before"]: edits[0]["after"],
    }
    server.script(**answers)
    data = write_set(tmp_path / "HumanEval.dev.jsonl.gz", holes)
    for policy in ("verified", "autoregressive"):
        out = folder / f"h.{policy}.json"
        assert unmask.run("eval", "generation", "--data", data, "--json", out, "--policy", policy).code == 0
        server.script(**{**answers, holes[2]["prompt"]: "    return a - 1\n"})
    server.script(**answers)
    data = write_set(tmp_path / "Exercism.dev.jsonl.gz", exercises)
    assert unmask.run("eval", "exercism", "--data", data, "--json", folder / "e.json").code == 0
    data = write_set(tmp_path / "CanItEdit.dev.jsonl.gz", edits)
    assert unmask.run("eval", "editing", "--data", data, "--json", folder / "c.json").code == 0
    return folder


def test_the_page_shows_results_and_needs_nothing_else(unmask: Unmask, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = unmask.run("eval", "report", runs, "--out", out, "--title", "Runs of <today>")
    assert done.code == 0, done.err
    page = read(out)
    assert page.fetched == [], "one file, no network"
    assert page.headings[0] == "Runs of <today>"
    text = out.read_text()
    assert "prefers-color-scheme: dark" in text and text.count("<svg") == 3
    assert "@import" not in text and "<script" not in text
    overview = {(row[0], row[1]): row for row in page.tables[0][1:]}
    verified = overview["HumanEvalscripted-model", "verified"]
    assert verified[2:6] == ["3 of 4", "75.030.1 to 95.4", "2.50", "500.0"]
    exercism = overview["Exercismscripted-model", "verified"]
    assert exercism[2] == "2 of 3"
    edits = overview["CanItEditscripted-model", "verified"]
    assert (edits[2], edits[9]) == ("2 of 2", "2")
    sides = page.tables[1]
    assert sides[1][1:4] == ["autoregressive → verified", "3 of 4", "50.0 → 75.0"]
    assert "unmask --url" in text and "--token-file ..." in text and "a-token-for-tests" not in text
    assert "after try 1" in text and "no_such_library" in text


def test_our_rows_stand_beside_the_papers(runs: Path, tmp_path: Path) -> None:
    results, _ = collect([runs])
    first, second, third = make_tables(results)
    ours = [row for row in first.rows if row.is_ours]
    assert [(row.model, row.values) for row in ours] == [("scripted-model (verified)", (66.7, 100.0))]
    assert "3 exercises of Exercism, 33.3 after one try" in ours[0].note
    assert not any(row.is_ours for row in (*second.rows, *third.rows))
    assert first.rows[1].model == "CodeLlama-7B-Instruct" and first.rows[1].values == (1.5, 25.7)


def test_languages_stand_in_their_columns(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    python = mbxp_row("python")
    chinese = [naturalcodebench_row(1), naturalcodebench_row(2, java=True)]
    server.script(**{python["prompt"]: "  return a + 1\n"})
    folder = tmp_path / "runs"
    folder.mkdir()
    data = write_set(tmp_path / "mbxp.jsonl", [python])
    assert unmask.run("eval", "generation", "--data", data, "--json", folder / "m.json").code == 0
    data = write_set(tmp_path / "ncb_python_zh.jsonl", chinese)
    assert unmask.run("eval", "generation", "--data", data, "--json", folder / "n.json").code == 0
    _, second, third = make_tables(collect([folder])[0])
    assert second.rows[0].is_ours and second.rows[0].values == (100.0, *[None] * 13)
    assert third.rows[0].is_ours and third.rows[0].values == (0.0, *[None] * 6)
    write_page([folder], tmp_path / "page.html")
    assert "1 no JUnit" in (tmp_path / "page.html").read_text()


def test_the_papers_figures_are_those_of_its_text() -> None:
    lines = [line.split("\t") for line in find_paper().read_text(encoding="utf-8").splitlines() if line.count("\t") > 1]
    printed: dict[str, list[list[float]]] = {}
    for cells in lines:
        words = [cell.strip() for cell in cells if cell.strip()]
        numbers = [float(word) for word in words[2:] if re.fullmatch(r"\d+\.\d+", word)]
        if len(words) > 3 and len(numbers) == len(words) - 2:
            name = re.sub(r"[${}\s]|\\bf|\\text", "", words[0]).replace("(0705)", " (0705)")
            printed.setdefault(name, []).append(numbers)
    stored: dict[str, list[list[float]]] = {}
    for table in read_paper()["tables"].values():
        for row in table["rows"]:
            assert len(row["values"]) == len(table["columns"])
            stored.setdefault(row["model"].replace("Deep Seek", "DeepSeek"), []).append(row["values"])
    assert stored == printed and sum(map(len, printed.values())) == 49


def test_an_interval_holds_the_rate() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    low, high = interval(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert interval(0, 5)[0] == 0.0 and interval(5, 5)[1] == 1.0


def test_what_is_no_result_is_named(unmask: Unmask, tmp_path: Path) -> None:
    with pytest.raises(PageError, match=r"no result file \(\*.json\)"):
        collect([tmp_path])
    bad = tmp_path / "bad.json"
    for content, message in (
        ("{", "is no JSON"),
        ('{"benchmark": "decode"}', "n, passed, pass_at_1, items, settings missing"),
    ):
        bad.write_text(content)
        failed = unmask.run("eval", "report", bad, "--out", tmp_path / "p.html")
        assert failed.code == 1 and message in failed.err and not (tmp_path / "p.html").exists()
    assert unmask.run("eval", "report", tmp_path / "absent", "--out", tmp_path / "p.html").code == 2


def test_unfinished_runs_are_named_and_others_shown(runs: Path, tmp_path: Path) -> None:
    (runs / "x.json.partial.jsonl").write_text("")
    (runs / "h.verified.json.runs.jsonl").unlink()
    written = write_page([runs], tmp_path / "page.html")
    assert written.num_runs == 4 and written.notes == ("x.json.partial.jsonl: not finished, not shown",)
    assert "there is no log beside the result file" in (tmp_path / "page.html").read_text()
    with pytest.raises(PageError, match="cannot be written"):
        write_page([runs], tmp_path / "absent" / "page.html")


def test_the_page_is_the_same_for_the_same_results(runs: Path, tmp_path: Path) -> None:
    pages: list[Any] = []
    for name in ("a.html", "b.html"):
        write_page([runs], tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_a_run_without_a_scored_item_has_no_plots(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    data = write_set(tmp_path / "mbxp.jsonl", [mbxp_row("scala")])
    out = tmp_path / "m.json"
    assert unmask.run("eval", "generation", "--data", data, "--json", out, PATH="/nowhere").code == 0
    assert json.loads(out.read_text())["n"] == 0
    write_page([out], tmp_path / "page.html")
    assert "<svg" not in (tmp_path / "page.html").read_text()
