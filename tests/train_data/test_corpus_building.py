"""From collected sources to a corpus folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers.source_trees import make_module, make_repository, write_tree
from helpers.tiny_corpora import ignore_progress, make_corpus, make_evaluation, make_sources, small_config
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.errors import ConfigError
from train.data.build import build_corpus, split_projects
from train.data.corpus import open_corpus, read_counts, read_examples
from train.data.corpus_recipes import CORPUS_RECIPES, change_fields, find_recipe
from train.data.errors import CorpusError
from train.data.examples import EditExample, ExampleKind, InfillExample, Origin, from_json, to_json
from train.data.manifest import SourceEntry, SourceKind, own_manifests
from train.data.sources import CollectedSource, collect_source


def test_a_corpus_holds_every_project_in_one_split_only(tmp_path: Path) -> None:
    folder, counts = make_corpus(tmp_path)
    corpus = open_corpus(folder)
    found = {
        split: {example.origin.source for example in read_examples(corpus, split)} for split in ("train", "held_out")
    }
    assert found["train"] | found["held_out"] == {"alpha", "beta", "gamma", "delta"}
    assert found["train"] and found["held_out"] and not found["train"] & found["held_out"]
    told = {source["name"]: source["split"] for source in corpus.description["sources"]}
    assert told == {name: split for split, names in found.items() for name in names}
    numbers = Counter(e.kind.value for split in ("train", "held_out") for e in read_examples(corpus, split))
    assert numbers == Counter(
        {k: sum(n for key, n in counts.examples.items() if key[2] == k) for k in {key[2] for key in counts.examples}}
    )
    assert {"document", "infill_line", "infill_node", "edit_synthetic"} <= set(numbers)
    assert len([shard for shard in corpus.shards if shard.split == "train"]) > 1
    assert read_counts(folder).to_json() == counts.to_json()


def test_building_again_gives_the_same_bytes(tmp_path: Path) -> None:
    first = open_corpus(make_corpus(tmp_path / "a")[0])
    second = open_corpus(make_corpus(tmp_path / "b")[0])
    assert first.shards == second.shards
    assert open_corpus(make_corpus(tmp_path / "c", seed=5)[0]).shards != first.shards


def test_files_with_evaluation_texts_and_copies_are_dropped_and_counted(tmp_path: Path) -> None:
    evaluation = make_evaluation(tmp_path / "eval")
    secret = make_module("secret", 3)
    (tmp_path / "eval" / "b.jsonl").write_text(json.dumps({"prompt": secret}) + "\n")
    from train.data.decontaminate import find_eval_files, index_eval_files

    evaluation = index_eval_files(find_eval_files(tmp_path / "eval"))
    sources = make_sources(tmp_path / "src")
    extra = {
        "x/leak.py": "import os\n\n" + secret,
        "x/copy.py": make_module("alpha", 6),
        "x/own.py": make_module("own"),
    }
    path = write_tree(tmp_path / "extra", extra)
    entry = SourceEntry(kind=SourceKind.FOLDER, name="extra", url=str(path), licence="ISC")
    sources.append(collect_source(entry, tmp_path))
    counts = build_corpus(sources, evaluation, tmp_path / "corpus", small_config(), ignore_progress)
    assert counts.left_out["file: shares a run with an evaluation set"] == 1
    assert counts.left_out["file: exact copy"] == 1
    corpus = open_corpus(tmp_path / "corpus")
    texts = [e for split in ("train", "held_out") for e in read_examples(corpus, split)]
    assert not any("secret_area" in json.dumps(to_json(example)) for example in texts)
    assert {e.origin.path for e in texts if e.origin.source == "extra"} == {"x/own.py"}
    assert {key[3] for key in counts.examples} == {"MIT", "ISC"}
    assert set(corpus.description["evaluation_files"]) == {"a.jsonl", "b.jsonl"}


def test_edits_of_commits_carry_source_and_licence(tmp_path: Path) -> None:
    import subprocess

    repository = make_repository(tmp_path / "repo", {"pkg/a.py": make_module("a"), "pkg/b.py": make_module("b")})
    text = make_module("a").replace("return round(total_a, 2)", "return round(abs(total_a), 2)")
    (repository / "pkg" / "a.py").write_text(text)
    git = ["git", "-C", str(repository), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "commit", "-qam", "Return the absolute area in a_area_2"], check=True, capture_output=True)
    entry = SourceEntry(kind=SourceKind.REPOSITORY, name="someone/repo", url=str(repository))
    sources = [*make_sources(tmp_path / "src"), collect_source(entry, tmp_path / "clones")]
    build_corpus(sources, make_evaluation(tmp_path / "eval"), tmp_path / "corpus", small_config(), ignore_progress)
    corpus = open_corpus(tmp_path / "corpus")
    edits = [
        example
        for split in ("train", "held_out")
        for example in read_examples(corpus, split)
        if example.kind is ExampleKind.EDIT_COMMIT
    ]
    assert len(edits) == 1 and isinstance(edits[0], EditExample)
    assert edits[0].after == text and edits[0].origin.licence == "MIT"
    assert edits[0].origin.source.startswith("someone/repo@")


def test_one_project_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there is only 'alpha': add another source"):
        make = make_sources(tmp_path / "src", ["alpha"])
        build_corpus(make, make_evaluation(tmp_path / "eval"), tmp_path / "corpus", small_config(), ignore_progress)
    assert not (tmp_path / "corpus").exists()


def test_a_failed_build_leaves_the_earlier_corpus(tmp_path: Path) -> None:
    folder, _ = make_corpus(tmp_path)
    before = open_corpus(folder).shards
    with pytest.raises(CorpusError, match="no file is left to learn from"):
        sources = make_sources(tmp_path / "src")
        config = small_config(languages=("go",))
        build_corpus(sources, make_evaluation(tmp_path / "eval"), folder, config, ignore_progress)
    assert open_corpus(folder).shards == before


def test_a_large_source_gives_its_share_only(tmp_path: Path) -> None:
    _, counts = make_corpus(tmp_path, max_source_bytes=2500)
    assert counts.left_out["file: beyond the share of its source"] >= 4


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    folder, _ = make_corpus(tmp_path)
    path = folder / open_corpus(folder).shards[0].path
    split = open_corpus(folder).shards[0].split
    path.write_bytes(path.read_bytes()[:-10] + b"0123456789")
    with pytest.raises(CorpusError, match=rf"{path.name} is damaged"):
        list(read_examples(open_corpus(folder), split))
    path.unlink()
    with pytest.raises(CorpusError, match=rf"{path.name} cannot be read"):
        list(read_examples(open_corpus(folder), split))


def test_what_is_no_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is no corpus"):
        open_corpus(tmp_path)
    folder, _ = make_corpus(tmp_path)
    with pytest.raises(CorpusError, match="split 'test' is unknown: one of train, held_out"):
        list(read_examples(open_corpus(folder), "test"))
    stored = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**stored, "shards": []}))
    with pytest.raises(CorpusError, match="the split 'train' is empty"):
        list(read_examples(open_corpus(folder), "train"))
    (folder / "manifest.json").write_text(json.dumps({**stored, "format": 99}))
    with pytest.raises(CorpusError, match="has corpus format 99"):
        open_corpus(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(CorpusError, match="is damaged"):
        open_corpus(folder)


@given(st.sets(st.integers(0, 500), min_size=2, max_size=30), st.integers(0, 3))
def test_a_project_stays_in_its_split_when_others_come(numbers: set[int], seed: int) -> None:
    entries = [SourceEntry(kind=SourceKind.PACKAGE, name=f"p{number}") for number in sorted(numbers)]
    sources = [CollectedSource(entry=entry, files=(), left_out={}) for entry in entries]
    splits = split_projects(sources, 0.2, seed)
    assert set(splits.values()) == {"train", "held_out"}
    fewer = split_projects(sources[:-1], 0.2, seed) if len(sources) > 2 else {}
    assert sum(splits[name] != split for name, split in fewer.items()) <= 2  # only the forced first and last may move


@pytest.mark.parametrize("seed", range(8))
def test_some_history_is_held_out_and_some_is_not(seed: int) -> None:
    sources = [
        CollectedSource(
            entry=SourceEntry(kind=SourceKind.REPOSITORY if number < 4 else SourceKind.PACKAGE, name=f"p{number}"),
            files=(), left_out={}, git_folder=Path("x") if number < 4 else None,
        )
        for number in range(40)
    ]  # fmt: skip
    splits = split_projects(sources, 0.05, seed)
    assert {splits[f"p{number}"] for number in range(4)} == {"train", "held_out"}


TEXT = st.text(alphabet='a\n\u2028é"\\', max_size=20)


@given(TEXT, TEXT, TEXT, st.data())
def test_examples_survive_json(before: str, middle: str, instruction: str, data: st.DataObject) -> None:
    origin = Origin(source="a==1", path="x.py", licence="MIT", language="python")
    infill = InfillExample(
        kind=ExampleKind.INFILL_SPAN, prefix=before, middle=middle, suffix="", path="x.py", origin=origin
    )
    start = data.draw(st.integers(0, len(before)))
    end = data.draw(st.integers(start, len(before)))
    edit = EditExample(
        kind=ExampleKind.EDIT_COMMIT, before=before, start=start, end=end, edited=middle, instruction=instruction,
        rewrite="", origin=origin,
    )  # fmt: skip
    assert edit.after == before[:start] + middle + before[end:]
    for example in (infill, edit):
        assert from_json(json.loads(json.dumps(to_json(example)))) == example


def test_a_broken_example_is_refused() -> None:
    origin = Origin(source="a==1", path="x.py", licence="MIT", language="python")
    with pytest.raises(ConfigError, match="selects characters 3 to 9 of a file of 4"):
        EditExample(
            kind=ExampleKind.EDIT_COMMIT, before="abcd", start=3, end=9, edited="", instruction="x", rewrite="",
            origin=origin,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="cannot be of kind 'edit_commit'"):
        InfillExample(kind=ExampleKind.EDIT_COMMIT, prefix="", middle="", suffix="", path="", origin=origin)
    for row in ({}, {"kind": "nonsense"}, {"kind": "document", "origin": {}}):
        with pytest.raises(ConfigError, match="cannot be read"):
            from_json(row)


def test_recipes_name_manifests_that_exist() -> None:
    for recipe in CORPUS_RECIPES:
        config = recipe()
        assert config.name == recipe.__name__ and recipe.__doc__
        assert set(config.manifests) <= set(own_manifests())


def test_an_unknown_recipe_or_field_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'polygot' is unknown; did you mean 'polyglot'"):
        find_recipe("polygot")
    config = find_recipe("python")
    changed = change_fields(config, ["infill.max_prefix=7", "languages=go, rust", "held_out_share=0.5", "seed=3"])
    assert (changed.infill.max_prefix, changed.languages) == (7, ("go", "rust"))
    assert (changed.held_out_share, changed.seed) == (0.5, 3)
    for setting, message in {
        "max_source_byte=1": "did you mean 'max_source_bytes'", "infill.max_prefx=1": "did you mean 'max_prefix'",
        "seed": "FIELD=VALUE expected", "seed=x": "'x' is no int", "infill=3": "not a single value",
        "languages=cobol": "'cobol' is unknown", "held_out_share=2": "above 0, below 1",
        "infill.has_documents=perhaps": "true or false expected",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            change_fields(config, [setting])
