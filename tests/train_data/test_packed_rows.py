"""Several samples in one row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.errors import InvalidRequest
from train.data.packing import PADDING, assign_rows, pack_samples
from train.data.samples import Sample


def make_sample(length: int, num_prompt: int, first: int) -> Sample:
    empty = torch.zeros(0, dtype=torch.long)
    changed = torch.ones(length - num_prompt, dtype=torch.bool)
    return Sample(torch.arange(first, first + length), num_prompt, "document", changed, empty)


@given(st.lists(st.tuples(st.integers(1, 16), st.integers(0, 16)), min_size=1, max_size=12))
def test_every_sample_is_found_whole_in_one_row(shapes: list[tuple[int, int]]) -> None:
    samples = [make_sample(n, min(p, n), 100 * k + 1) for k, (n, p) in enumerate(shapes)]
    packed = pack_samples(samples, 16)
    for number, sample in enumerate(samples):
        places = (packed.document_ids == number).nonzero()
        assert len(places[:, 0].unique()) == 1
        row, columns = places[0, 0], places[:, 1]
        assert torch.equal(packed.tokens[row, columns], sample.tokens)
        assert torch.equal(packed.positions[row, columns], torch.arange(len(sample.tokens)))
        assert int(packed.is_answer[row, columns].sum()) == len(sample.tokens) - sample.num_prompt
    padding = packed.document_ids == PADDING
    assert int((~padding).sum()) == sum(len(sample.tokens) for sample in samples)
    assert not packed.is_answer[padding].any()
    mask = packed.may_attend()
    assert mask.diagonal(dim1=1, dim2=2).all()
    row = 0
    for left in range(16):
        for right in range(16):
            allowed = right <= left and packed.document_ids[row, left] == packed.document_ids[row, right]
            assert bool(mask[row, left, right]) == bool(allowed)


@given(st.lists(st.integers(1, 10), max_size=30))
def test_rows_are_never_more_than_half_empty_on_average(lengths: list[int]) -> None:
    rows = assign_rows(lengths, 10)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    sizes = [sum(lengths[number] for number in row) for row in rows]
    assert all(size <= 10 for size in sizes)
    assert len(rows) < 2 or sum(sizes) > 10 * len(rows) / 2


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="sample 1 has 9 tokens, a row 8: lower max_tokens"):
        pack_samples([make_sample(3, 0, 1), make_sample(9, 0, 1)], 8)
