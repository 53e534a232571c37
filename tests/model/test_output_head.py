"""The output head in pieces: the scores of the whole, and the best tokens without holding them."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import tiny_denoiser

from diffusion_core.model import output_head
from diffusion_core.model.output_head import OutputHead, pack_head, quantized_head
from diffusion_core.model.packed import PackedMatrix, can_pack
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import quantize_weight, why_not_quantized

CPU = torch.device("cpu")
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(CPU, dtype)]
FORMS = [Quantization.NONE] if why_not_quantized("cpu") else [Quantization.NONE, Quantization.INT8]
VOCABULARY, SIZE = 700, 96


def random_head(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(VOCABULARY, SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)


def pack(weight: torch.Tensor, form: Quantization) -> OutputHead:
    head = pack_head(weight, form)
    assert head is not None
    return head


@pytest.fixture(params=[64, 128, 32768])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(output_head, "PIECE", request.param)
    return int(request.param)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_pieces_give_the_scores_and_the_best_tokens_of_the_whole(dtype: torch.dtype, form: Quantization) -> None:
    weight = random_head(dtype)
    head = pack(weight, form)
    x = torch.randn(96, SIZE, generator=torch.Generator().manual_seed(2)).to(dtype)
    for rows in (2, 3, 17, 33, 96):
        scores = head.scores(x[:rows])
        assert scores.shape == (rows, VOCABULARY)
        assert scores.dtype == torch.float32
        # Bfloat16 and 8 bits are as near to the exact product as they are in one matrix.
        torch.testing.assert_close(scores, x[:rows].float() @ weight.float().T, rtol=0.02, atol=0.4)
        best = head.best(x[:rows])
        assert best.dtype == torch.int64
        assert torch.equal(best, scores.argmax(-1))


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("form", FORMS)
def test_of_equals_the_first_is_the_best_wherever_they_are(form: Quantization) -> None:
    weight = random_head(torch.float32)
    x = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(3))
    best = pack(weight, form).best(x).tolist()
    for row, token in enumerate(best):
        for other in (0, 63, 64, 300, VOCABULARY - 1):
            doubled = weight.clone()
            doubled[other] = weight[token]
            assert int(pack(doubled, form).best(x[row : row + 1].repeat(2, 1))[0]) == min(token, other)


@pytest.mark.skipif(bool(why_not_quantized("cpu")), reason=why_not_quantized("cpu"))
@pytest.mark.usefixtures("piece")
def test_a_stored_head_of_8_bits_is_the_one_that_is_made() -> None:
    weight = random_head(torch.float32)
    x = torch.randn(7, SIZE, generator=torch.Generator().manual_seed(4))
    stored, made = quantized_head(quantize_weight(weight)), pack(weight, Quantization.INT8)
    assert torch.equal(stored.scores(x), made.scores(x))
    assert stored.num_bytes == made.num_bytes == VOCABULARY * (SIZE + 4)


def test_pieces_multiply_as_the_whole_matrix_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_head, "PIECE", 128)
    weight = random_head(torch.float32)
    x = torch.randn(8, SIZE, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(pack(weight, Quantization.NONE).scores(x), PackedMatrix(weight).scores(x))


def test_a_lone_row_is_judged_as_in_company() -> None:
    denoiser = tiny_denoiser()
    denoiser.model.pack()
    hidden = torch.randn(9, denoiser.model.config.hidden_size, generator=torch.Generator().manual_seed(6))
    best = denoiser.best(hidden)
    assert [denoiser.best(hidden[row : row + 1])[0] for row in range(9)] == best
    assert best == denoiser.scores(hidden).argmax(-1).tolist()


def test_without_a_packed_head_the_plain_scores_decide() -> None:
    denoiser = tiny_denoiser()
    assert denoiser.model.packed_head is None
    hidden = torch.randn(4, denoiser.model.config.hidden_size, generator=torch.Generator().manual_seed(7))
    assert denoiser.best(hidden) == denoiser.scores(hidden).argmax(-1).tolist()
