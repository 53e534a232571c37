"""Samples: a pure function of seed, step and rank, laid out as serving lays prompts out."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_corpora import CONTRACT, make_corpus, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.engine.prompt_tokens import PromptEncoder
from diffusion_core.errors import ConfigError
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.prompts import prompt_format
from diffusion_core.requests import CompletionRequest, EditRequest
from train.data.corpus import open_corpus, read_examples
from train.data.errors import CorpusError
from train.data.examples import EditExample, ExampleKind, InfillExample
from train.data.loader import LoaderConfig, SampleLoader, cut_windows
from train.data.mixture import CYCLE, MixtureOrder, resolve_mixture
from train.data.samples import Sample
from train.data.tokenise import mark_changed

LAYOUTS = ("prefix_suffix_middle", "suffix_prefix_middle", "suffix_first")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("loader"))[0]


def make_loader(
    corpus: Path, split: str = "train", contract: DiffusionConfig = CONTRACT, **changes: object
) -> SampleLoader:
    config = LoaderConfig(**({"sequences": 6, "max_tokens": 4096} | changes))  # type: ignore[arg-type]
    return SampleLoader(corpus, make_tokenizer(), contract, config, split=split)


def same(left: Sample, right: Sample) -> bool:
    return (
        torch.equal(left.tokens, right.tokens)
        and torch.equal(left.original, right.original)
        and torch.equal(left.answer_changed, right.answer_changed)
        and (left.num_prompt, left.kind, left.id) == (right.num_prompt, right.kind, right.id)
    )


def test_a_batch_depends_on_seed_and_step_only(corpus: Path) -> None:
    first, second = make_loader(corpus, layouts=LAYOUTS), make_loader(corpus, layouts=LAYOUTS)
    wanted = [first.batch(step) for step in range(5)]
    for step in (4, 2, 0, 3, 1):  # as after a resume, in any order
        assert all(map(same, second.batch(step), wanted[step]))
    other = make_loader(corpus, layouts=LAYOUTS, seed=1).batch(0)
    assert not all(map(same, other, wanted[0]))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_ranks_together_have_the_batch_of_one(corpus: Path, world_size: int) -> None:
    loader = make_loader(corpus, layouts=LAYOUTS)
    parts = [loader.batch(7, rank, world_size) for rank in range(world_size)]
    joined = [sample for row in itertools.zip_longest(*parts) for sample in row if sample is not None]
    assert all(map(same, joined, loader.batch(7))) and len(joined) == 6


def test_no_example_comes_twice_in_an_epoch(corpus: Path) -> None:
    loader = make_loader(corpus, mixture={"infill_line": 1.0})
    number = loader.num_entries
    lines = [loader.sample(draw).id for draw in range(2 * number)]
    size = len(set(lines))
    assert Counter(lines[:size]) == Counter(set(lines))
    assert lines[:size] != lines[size : 2 * size] and set(lines[size : 2 * size]) == set(lines)


def test_infilling_prompts_are_those_of_serving(corpus: Path) -> None:
    """Tokens of a sample = the engine's own rendering of the example, in each layout."""
    tokenizer = make_tokenizer()
    encoder = PromptEncoder(tokenizer, CONTRACT, 10**6)
    examples = list(read_examples(open_corpus(corpus), "train"))
    for layout in LAYOUTS:
        loader = make_loader(corpus, layouts=(layout,), mixture={"infill": 1.0}, max_tokens=100_000)
        for sample in (loader.sample(number) for number in range(40)):
            example = examples[int(sample.id.rpartition("/")[2])]
            assert isinstance(example, InfillExample) and sample.kind == example.kind.value
            request = CompletionRequest(prefix=example.prefix, suffix=example.suffix, language="python")
            prompt = encoder.encode(prompt_format(CONTRACT.prompt_format).render_completion(request, layout))
            answer = [*encoder.encode_text(example.middle), tokenizer.token_to_id("<|endoftext|>")]
            assert sample.tokens.tolist() == prompt + answer
            assert sample.num_prompt == len(prompt)
            assert sample.answer_changed.all() and len(sample.answer_changed) == len(answer)
            assert len(sample.original) == 0


def test_edit_prompts_are_those_of_serving(corpus: Path) -> None:
    tokenizer = make_tokenizer()
    encoder = PromptEncoder(tokenizer, CONTRACT, 4096)
    examples = list(read_examples(open_corpus(corpus), "train"))
    loader = make_loader(corpus, mixture={"edit": 1.0})
    seen = 0
    for sample in (loader.sample(number) for number in range(len(examples))):
        text = tokenizer.decode(sample.tokens[sample.num_prompt :].tolist(), skip_special_tokens=True)
        matching = [e for e in examples if isinstance(e, EditExample) and text == e.edited.rstrip("\n") + "\n```"]
        if not matching:
            continue
        example = matching[0]
        request = EditRequest(
            selection=example.selection, instruction=example.instruction, before=example.before[: example.start],
            after=example.before[example.end :], language="python",
        )  # fmt: skip
        num_answer = len(sample.tokens) - sample.num_prompt
        prompts = [
            encoder.encode_edit(
                EditRequest(
                    selection=e.selection, instruction=e.instruction, before=e.before[: e.start],
                    after=e.before[e.end :], language="python",
                ), num_answer
            ).tokens
            for e in matching if isinstance(e, EditExample)
        ]  # fmt: skip
        assert sample.tokens[: sample.num_prompt].tolist() in prompts, request
        assert sample.tokens[-1] == tokenizer.token_to_id("<|im_end|>")
        assert sample.answer_changed.any() and not sample.answer_changed[-2:].any()
        assert tokenizer.decode(sample.original.tolist()).endswith("\n```")
        seen += 1
    assert seen > 3


def test_documents_are_cut_into_windows_that_cover_them(corpus: Path) -> None:
    tokenizer = make_tokenizer()
    loader = make_loader(corpus, mixture={"document": 1.0}, max_tokens=200, sequences=1)
    documents = [e for e in read_examples(open_corpus(corpus), "train") if e.kind is ExampleKind.DOCUMENT]
    windows: dict[str, dict[int, Sample]] = {}
    for number in range(400):
        sample = loader.sample(number)
        name, _, begin = sample.id.rpartition(":")
        windows.setdefault(name, {})[int(begin)] = sample
        assert sample.num_prompt == 0 and len(sample.tokens) <= 200
    texts = {
        tokenizer.decode(
            [t for begin in sorted(parts) for t in parts[begin].tokens.tolist()], skip_special_tokens=False
        )
        for parts in windows.values()
    }
    assert texts == {example.middle + "<|endoftext|>" for example in documents if isinstance(example, InfillExample)}
    stop = tokenizer.token_to_id("<|endoftext|>")
    found = [sample for parts in windows.values() for sample in parts.values()]
    assert all(sample.is_finished == (int(sample.tokens[-1]) == stop) for sample in found)
    assert {sample.is_finished for sample in found} == {True, False}


def test_without_a_stop_token_no_answer_is_finished(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {make_loader(corpus, mixture={"infill": 1.0}).sample(number).is_finished for number in range(20)} == {True}
    monkeypatch.setattr("train.data.loader.stop_tokens", lambda *_: [])
    assert {make_loader(corpus).sample(number).is_finished for number in range(40)} == {False}


@pytest.mark.parametrize("max_tokens", [128, 300, 700])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_samples_fit_and_keep_their_answer_whole(corpus: Path, max_tokens: int, split: str) -> None:
    loader = make_loader(corpus, split, layouts=LAYOUTS, max_tokens=max_tokens)
    examples = list(read_examples(open_corpus(corpus), split))
    tokenizer = make_tokenizer()
    for number in range(150):
        sample = loader.sample(number)
        assert len(sample.tokens) <= max_tokens
        assert len(sample.answer_changed) == len(sample.tokens) - sample.num_prompt
        if sample.kind.startswith("infill_"):
            example = examples[int(sample.id.rpartition("/")[2])]
            assert isinstance(example, InfillExample)
            text = tokenizer.decode(sample.tokens[sample.num_prompt : -1].tolist())
            assert text == example.middle


def test_a_cut_prefix_begins_at_a_line_and_ends_at_the_cursor(corpus: Path) -> None:
    tokenizer = make_tokenizer()
    loader = make_loader(corpus, layouts=("prefix_suffix_middle",), mixture={"infill": 1.0}, max_tokens=220)
    examples = list(read_examples(open_corpus(corpus), "train"))
    num_cut = 0
    for number in range(100):
        sample = loader.sample(number)
        example = examples[int(sample.id.rpartition("/")[2])]
        assert isinstance(example, InfillExample)
        text = tokenizer.decode(sample.tokens[: sample.num_prompt].tolist(), skip_special_tokens=False)
        prefix, suffix = text.removeprefix("<|fim_prefix|>").removesuffix("<|fim_middle|>").split("<|fim_suffix|>")
        assert example.prefix.endswith(prefix) and example.suffix.startswith(suffix)
        num_cut += prefix != example.prefix
    assert num_cut > 20


def test_a_plain_format_shows_no_suffix_and_never_an_empty_prompt(corpus: Path) -> None:
    loader = make_loader(corpus, contract=DiffusionConfig(prompt_format="plain/1", stop_token_ids=(256,)))
    for number in range(200):
        sample = loader.sample(number)
        assert sample.tokens[-1] == 256
        assert sample.num_prompt > 0 or sample.kind == "document"


def test_tokens_are_made_once_and_again_if_the_corpus_changes(corpus: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def note(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    folder, _ = make_corpus(tmp_path)
    config = LoaderConfig(max_tokens=512)
    loader = SampleLoader(folder, make_tokenizer(), CONTRACT, config, on_progress=note)
    assert stages and isinstance(loader._store.tokens, np.memmap)
    stages.clear()
    SampleLoader(folder, make_tokenizer(), CONTRACT, config, on_progress=note)
    assert not stages
    make_corpus(tmp_path, seed=9)
    SampleLoader(folder, make_tokenizer(), CONTRACT, config, on_progress=note)
    assert stages


def test_damaged_tokens_are_named(tmp_path: Path) -> None:
    folder, _ = make_corpus(tmp_path)
    make_loader(folder)
    path = next((folder / "tokens").glob("train-*/tokens.bin"))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CorpusError, match=r"is damaged .sizes do not agree.: remove it"):
        make_loader(folder)


def test_bad_settings_are_explained(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'infil_line' is unknown; did you mean 'infill_line'"):
        make_loader(corpus, mixture={"infil_line": 1.0})
    with pytest.raises(ConfigError, match=r"mixture\.edit_commit is 1\.0, but the corpus holds no such example"):
        make_loader(corpus, mixture={"edit_commit": 1.0})
    with pytest.raises(ConfigError, match="'middle_out' is unknown to the prompt format"):
        make_loader(corpus, layouts=("middle_out",))
    with pytest.raises(CorpusError, match="split 'test' is unknown"):
        make_loader(corpus, "test")
    with pytest.raises(CorpusError, match="held-out split has no example of edit_commit"):
        make_loader(corpus, "held_out", mixture={"edit_commit": 1.0})
    with pytest.raises(CorpusError, match="is no corpus"):
        make_loader(tmp_path)
    with pytest.raises(ConfigError, match="no corpus is named"):
        SampleLoader("", make_tokenizer(), CONTRACT, LoaderConfig())
    for changes in ({"sequences": 0}, {"max_tokens": 3}):
        with pytest.raises(ConfigError, match="at least"):
            LoaderConfig(**changes)


AVAILABLE = {
    ExampleKind.DOCUMENT: 7,
    ExampleKind.INFILL_LINE: 30,
    ExampleKind.INFILL_SPAN: 10,
    ExampleKind.EDIT_COMMIT: 5,
}


def test_a_mixture_weighs_kinds_and_groups() -> None:
    weights = resolve_mixture({"document": 1, "infill": 2, "edit": 1}, AVAILABLE)
    assert weights == pytest.approx(
        {ExampleKind.DOCUMENT: 0.25, ExampleKind.INFILL_LINE: 0.375, ExampleKind.INFILL_SPAN: 0.125,
         ExampleKind.EDIT_COMMIT: 0.25}
    )  # fmt: skip
    assert resolve_mixture({}, AVAILABLE)[ExampleKind.INFILL_LINE] == pytest.approx(30 / 52)
    for mixture, message in (({"document": -1}, "at least 0"), ({"document": 0}, "every weight is 0")):
        with pytest.raises(ConfigError, match=message):
            resolve_mixture(mixture, AVAILABLE)


@settings(max_examples=20)
@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=4), st.lists(st.integers(1, 70), min_size=4, max_size=4),
    st.integers(0, 9),
)  # fmt: skip
def test_kinds_come_in_proportion_and_every_example_before_a_repeat(
    weights: list[float], sizes: list[int], seed: int
) -> None:
    kinds = list(AVAILABLE)[: len(weights)]
    share = {kind: weight / sum(weights) for kind, weight in zip(kinds, weights, strict=True)}
    number = dict(zip(kinds, sizes, strict=False))
    order = MixtureOrder(share, number, seed)
    draws = [order.draw(place) for place in range(2 * CYCLE)]
    for kind in kinds:
        found = [index for drawn, index in draws if drawn is kind]
        assert abs(len(found) / len(draws) - share[kind]) < 0.005
        for start in range(0, len(found) - number[kind] + 1, number[kind]):
            assert sorted(found[start : start + number[kind]]) == list(range(number[kind]))


@given(st.integers(0, 5000), st.integers(8, 600))
def test_windows_cover_a_document_evenly(length: int, limit: int) -> None:
    windows = cut_windows(length, limit)
    if length < 8:
        assert not windows
        return
    assert windows[0][0] == 0 and windows[-1][1] == length
    assert all(left[1] == right[0] for left, right in itertools.pairwise(windows))
    sizes = [end - begin for begin, end in windows]
    assert max(sizes) <= limit and max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(0, 4), max_size=12), st.lists(st.integers(0, 4), max_size=12))
def test_what_is_not_marked_as_changed_stood_in_the_original(original: list[int], answer: list[int]) -> None:
    changed = mark_changed(original, answer)
    kept = [token for token, flag in zip(answer, changed, strict=True) if not flag]
    rest = iter(original)
    assert all(token in rest for token in kept)
    if original == answer:
        assert not any(changed)
    elif len(answer) and answer != original[: len(answer)]:
        assert any(changed)


def test_the_token_after_a_deletion_is_marked() -> None:
    assert mark_changed([1, 2, 3, 4], [1, 4]) == [0, 1]
    assert mark_changed([1, 2, 3], [1, 9, 2, 3]) == [0, 1, 0, 0]


@pytest.mark.slow
def test_many_processes_make_the_tokens_once(tmp_path: Path) -> None:
    folder, _ = make_corpus(tmp_path)
    code = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "from helpers.tiny_corpora import CONTRACT, make_tokenizer\n"
        "from train.data.loader import LoaderConfig, SampleLoader\n"
        "loader = SampleLoader(sys.argv[1], make_tokenizer(), CONTRACT, LoaderConfig(max_tokens=512))\n"
        "print(loader.batch(3)[0].tokens.tolist())\n"
    )
    root = Path(__file__).resolve().parents[2]
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=root, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(outputs) == 1 and outputs != {""}
    assert len(list((folder / "tokens").glob("train-*/tokens.bin"))) == 1
