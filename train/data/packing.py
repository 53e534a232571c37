"""Packing: several short samples in one row, told apart by document ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from diffusion_core.errors import InvalidRequest
from train.data.samples import Sample

PADDING = -1


@dataclass(frozen=True)
class PackedRows:
    """Samples side by side.

    ``tokens``, ``document_ids`` and ``positions`` int64 [R, T]: the document id is the sample's place in the batch,
    ``PADDING`` where there is none; positions begin at 0 in every sample. ``is_answer`` bool [R, T].
    """

    tokens: torch.Tensor
    document_ids: torch.Tensor
    positions: torch.Tensor
    is_answer: torch.Tensor

    def may_attend(self) -> torch.Tensor:
        """Mask [R, T, T]: causal, within the same sample; padding sees itself, so that no row of it is empty."""
        same = self.document_ids.unsqueeze(2) == self.document_ids.unsqueeze(1)
        rows = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return same & (rows.unsqueeze(1) >= rows.unsqueeze(0))


def assign_rows(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Which samples share a row: the longest first, each into the fullest row that has room for it.

    Raises:
        InvalidRequest: a sample is longer than a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        length = lengths[number]
        if length > row_tokens:
            raise InvalidRequest(f"sample {number} has {length} tokens, a row {row_tokens}: lower max_tokens")
        fitting = [row for row in range(len(rows)) if free[row] >= length]
        if fitting:
            row = min(fitting, key=lambda row: free[row])
        else:
            row = len(rows)
            rows.append([])
            free.append(row_tokens)
        rows[row].append(number)
        free[row] -= length
    return rows


def pack_samples(samples: Sequence[Sample], row_tokens: int, padding_id: int = 0) -> PackedRows:
    """Pack samples into as few rows of ``row_tokens`` as this simple rule finds.

    Raises:
        InvalidRequest: a sample is longer than a row.
    """
    rows = assign_rows([len(sample.tokens) for sample in samples], row_tokens)
    shape = (len(rows), row_tokens)
    tokens = torch.full(shape, padding_id, dtype=torch.long)
    document_ids = torch.full(shape, PADDING, dtype=torch.long)
    positions = torch.zeros(shape, dtype=torch.long)
    is_answer = torch.zeros(shape, dtype=torch.bool)
    for row, members in enumerate(rows):
        begin = 0
        for number in members:
            sample = samples[number]
            end = begin + len(sample.tokens)
            tokens[row, begin:end] = sample.tokens
            document_ids[row, begin:end] = number
            positions[row, begin:end] = torch.arange(end - begin)
            is_answer[row, begin + sample.num_prompt : end] = True
            begin = end
    return PackedRows(tokens, document_ids, positions, is_answer)
