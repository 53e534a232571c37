"""Published formats of program-writing benchmarks, one a module, and which of them a file is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diffusion_core.eval.dataset import Dataset, DatasetError, Row, sample_items
from diffusion_core.eval.formats.bigcodebench import read_bigcodebench
from diffusion_core.eval.formats.humaneval import read_humaneval
from diffusion_core.eval.formats.livecodebench import read_livecodebench
from diffusion_core.eval.formats.mbpp import read_mbpp
from diffusion_core.eval.formats.mbxp import read_mbxp
from diffusion_core.eval.formats.naturalcodebench import read_naturalcodebench
from diffusion_core.eval.generation import FormatName, GenerationOptions, GenerationTask
from diffusion_core.eval.infilling import check_unique
from diffusion_core.eval.tasks import Benchmark


@dataclass(frozen=True, slots=True)
class Format:
    """``fields`` are those by which a row is recognised; ``read`` makes its task."""

    fields: frozenset[str]
    read: Callable[[Row, GenerationOptions], GenerationTask]


# The first whose fields are all there: HumanEval's fields are a part of MBXP's.
FORMATS: Mapping[FormatName, Format] = {
    FormatName.BIGCODEBENCH: Format(frozenset({"complete_prompt", "instruct_prompt", "test"}), read_bigcodebench),
    FormatName.LIVECODEBENCH: Format(frozenset({"question_content", "public_test_cases"}), read_livecodebench),
    FormatName.NATURALCODEBENCH: Format(frozenset({"_id", "testcases", "reference_solution"}), read_naturalcodebench),
    FormatName.MBXP: Format(frozenset({"prompt", "test", "language", "entry_point"}), read_mbxp),
    FormatName.MBPP: Format(frozenset({"test_list", "code"}), read_mbpp),
    FormatName.HUMANEVAL: Format(frozenset({"prompt", "test", "entry_point", "canonical_solution"}), read_humaneval),
}


def recognise_format(dataset: Dataset) -> FormatName:
    """The format of the file's first row.

    Raises:
        DatasetError: none; the message names the row's fields and what the formats have.
    """
    row = dataset.rows[0]
    names = set(row.fields)
    for name, known in FORMATS.items():
        # A hole with text behind it is infilling, an exercise with a stub has two tries: commands of their own.
        if known.fields <= names and not names & {"suffix", "stub"}:
            return name
    command = next((text for field, text in _OTHER_COMMANDS.items() if field in names), "")
    known_fields = "; ".join(f"{name}: {', '.join(sorted(f.fields))}" for name, f in FORMATS.items())
    raise DatasetError(
        f"{row.where}: no known format has the fields {', '.join(sorted(names)) or '(none)'}. "
        + (command or f"Known are {known_fields}")
    )


_OTHER_COMMANDS = {
    "suffix": "A prompt with a suffix is a task of `unmask eval infilling`",
    "stub": "A stub with instructions is a task of `unmask eval exercism`",
    "instruction_lazy": "Instructions about a program are a task of `unmask eval editing`",
}


def make_generation(
    dataset: Dataset, options: GenerationOptions, limit: int | None, seed: int, name: FormatName = FormatName.AUTO
) -> Benchmark:
    """The benchmark over ``limit`` items of a file.

    Raises:
        DatasetError: the format is unknown, a row lacks a field, or two rows have the same id.
    """
    if name is FormatName.AUTO:
        name = recognise_format(dataset)
    tasks = [FORMATS[name].read(row, options) for row in dataset.rows]
    check_unique([task.task_id for task in tasks], dataset.name)
    ask = tasks[0].question.ask
    return Benchmark(
        name="generation",
        tasks=tuple(sample_items(tasks, limit, seed)),
        settings={"format": name.value, "ask": ask.value, "max_tokens": options.max_tokens},
    )
