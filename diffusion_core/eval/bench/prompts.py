"""Requests to measure with: the rows of an evaluation file, one request each."""

from __future__ import annotations

from diffusion_core.eval.dataset import Dataset, DatasetError, Row
from diffusion_core.requests import CompletionRequest, EditRequest

Prompt = CompletionRequest | EditRequest


def make_prompts(dataset: Dataset, model: str, max_tokens: int, *, single_line: bool) -> list[Prompt]:
    """A request for each row: an edit where the row has an instruction, else a completion.

    Raises:
        DatasetError: a row has neither ``prompt`` nor ``before`` and ``instruction_descriptive``.
    """

    def make(row: Row) -> Prompt:
        if "instruction_descriptive" in row.fields:
            return EditRequest(
                selection=row.text("before"), instruction=row.text("instruction_descriptive"), language="python",
                model=model, max_tokens=max_tokens,
            )  # fmt: skip
        if "prompt" not in row.fields:
            raise DatasetError(f"{row.where}: has neither `prompt` nor `instruction_descriptive`")
        suffix = row.text("suffix") if "suffix" in row.fields else ""
        return CompletionRequest(
            prefix=row.text("prompt"), suffix=suffix, language="python", model=model, max_tokens=max_tokens,
            single_line=single_line,
        )  # fmt: skip

    return [make(row) for row in dataset.rows]
