"""The sets that ``unmask eval suite`` runs, from the cheapest to the dearest, and how each of them is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffusion_core.eval.dataset import Dataset, DatasetError, read_dataset
from diffusion_core.eval.editing import EditingOptions, make_editing
from diffusion_core.eval.exercism import ExercismOptions, make_exercism
from diffusion_core.eval.formats import make_generation
from diffusion_core.eval.generation import GenerationOptions
from diffusion_core.eval.infilling import InfillingOptions, make_infilling
from diffusion_core.eval.tasks import Benchmark
from diffusion_core.requests import DecodingParams

Make = Callable[[Dataset, str, DecodingParams, int | None, int], Benchmark]


@dataclass(frozen=True, slots=True)
class SuiteSet:
    """A set: the name of its results, the pattern of its file's name, seconds that a test may take."""

    name: str
    pattern: str
    timeout_s: float
    make: Make


def _infilling(data: Dataset, model: str, decoding: DecodingParams, limit: int | None, seed: int) -> Benchmark:
    return make_infilling(data, InfillingOptions(model=model, decoding=decoding), limit, seed)


def _generation(data: Dataset, model: str, decoding: DecodingParams, limit: int | None, seed: int) -> Benchmark:
    return make_generation(data, GenerationOptions(model=model, decoding=decoding), limit, seed)


def _editing(data: Dataset, model: str, decoding: DecodingParams, limit: int | None, seed: int) -> Benchmark:
    return make_editing(data, EditingOptions(model=model, decoding=decoding), limit, seed)


def _exercism(data: Dataset, model: str, decoding: DecodingParams, limit: int | None, seed: int) -> Benchmark:
    return make_exercism(data, ExercismOptions(model=model, decoding=decoding), limit, seed)


SUITE = (
    SuiteSet("humaneval-random-span", "HumanEval-RandomSpanInfilling*.jsonl*", 10.0, _infilling),
    SuiteSet("humaneval-single-line", "HumanEval-SingleLineInfilling*.jsonl*", 10.0, _infilling),
    SuiteSet("humaneval", "HumanEval.*jsonl*", 30.0, _generation),
    SuiteSet("humaneval-multi-line", "HumanEval-MultiLineInfilling*.jsonl*", 10.0, _infilling),
    SuiteSet("mbpp", "MBPP*.jsonl*", 30.0, _generation),
    SuiteSet("canitedit", "CanItEdit*.jsonl*", 30.0, _editing),
    SuiteSet("exercism", "Exercism*.jsonl*", 60.0, _exercism),
)


def find_sets(folder: Path, names: tuple[str, ...] = ()) -> list[tuple[SuiteSet, Dataset]]:
    """The sets whose files are in ``folder``, in the order of the suite; only those of ``names`` if there are any.

    Raises:
        DatasetError: a name is unknown, a named set or every set is missing, or a set has several files.
    """
    known = [entry.name for entry in SUITE]
    for name in names:
        if name not in known:
            raise DatasetError(f"--sets: {name!r} is unknown: known are {', '.join(known)}")
    found = []
    for entry in SUITE:
        if names and entry.name not in names:
            continue
        files = sorted(folder.glob(entry.pattern))
        if len(files) > 1:
            raise DatasetError(f"{folder}: {', '.join(file.name for file in files)} are files of one set: keep one")
        if files:
            found.append((entry, read_dataset(files[0])))
        elif names:
            raise DatasetError(f"{folder}: no file {entry.pattern} for {entry.name}")
    if not found:
        raise DatasetError(f"{folder}: no file of any set: {', '.join(entry.pattern for entry in SUITE)}")
    return found
