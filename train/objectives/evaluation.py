"""Figures on held-out answers: exact match and steps with the ``confidence`` policy, and repaired mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer

from diffusion_core.requests import DecodingParams
from diffusion_core.sampling.evaluate import Denoiser
from train.data.samples import Sample
from train.grammar import is_exact
from train.objectives.block_rows import check_contract
from train.objectives.corruption import own_tokens, split_sample
from train.rollout import RolloutSettings, denoise_block, evaluating, roll_out

# Extra room for an answer that has not ended where the reference does.
_SLACK_TOKENS = 8
_ROWS_AT_ONCE = 64


def serving_settings(denoiser: Denoiser) -> RolloutSettings:
    """The serving decoder's defaults for this checkpoint."""
    serving = DecodingParams()
    return RolloutSettings(block_size=denoiser.contract.block_size, tau=serving.tau, tau_low=serving.tau_low)


def matches(sample: Sample, answer: torch.Tensor, tokenizer: Tokenizer, denoiser: Denoiser) -> bool:
    """Whether an answer is exactly the sample's: its tokens, for the grammar up to the names of the locals."""
    _, reference = split_sample(sample)
    stops = set(denoiser.contract.stop_token_ids)
    given, wanted = ([t for t in row.tolist() if t not in stops] for row in (answer, reference))
    if sample.id.startswith("grammar/"):
        return is_exact(tokenizer.decode(given), tokenizer.decode(wanted))
    return given == wanted


@torch.no_grad()
def evaluate_answers(
    denoiser: Denoiser,
    tokenizer: Tokenizer,
    samples: Sequence[Sample],
    pad_id: int,
    settings: RolloutSettings | None = None,
) -> dict[str, float]:
    """Decode the samples' prompts: exact match, denoising steps per answer and tokens per forward."""
    settings = settings or serving_settings(denoiser)
    exact, steps, tokens = 0, 0, 0
    for first in range(0, len(samples), _ROWS_AT_ONCE):
        part = samples[first : first + _ROWS_AT_ONCE]
        pairs = [split_sample(sample) for sample in part]
        longest = max(len(answer) for _, answer in pairs) + _SLACK_TOKENS
        generator = torch.Generator().manual_seed(first)
        with evaluating(denoiser.model):
            rollout = roll_out(denoiser, [prompt for prompt, _ in pairs], settings, generator, max_tokens=longest)
        exact += sum(matches(s, a, tokenizer, denoiser) for s, a in zip(part, rollout.answers, strict=True))
        steps += int(rollout.num_steps.sum())
        tokens += sum(len(answer) for answer in rollout.answers)
    num = max(1, len(samples))
    return {"exact_match": exact / num, "steps": steps / num, "tokens_per_forward": tokens / max(1, steps)}


@torch.no_grad()
def evaluate_repairs(
    denoiser: Denoiser,
    samples: Sequence[Sample],
    pad_id: int,
    generator: torch.Generator,
    *,
    share: float = 0.1,
) -> dict[str, float]:
    """Self-correction: a ``share`` of each solved block's tokens is replaced by wrong ones, then denoised again.

    Every block of the reference answers is one trial; at least one token of it is replaced, by other tokens that
    the answer uses. Returns ``num_wrong``, how many of them came back right (``repaired``, a share), and ``broken``,
    the share of right tokens that ended wrong.
    """
    settings = serving_settings(denoiser)
    contexts, drafts, truths = [], [], []
    mask_id, stops = check_contract(denoiser.contract), torch.tensor(denoiser.contract.stop_token_ids)
    for sample in samples:
        prompt, answer = split_sample(sample)
        plausible = own_tokens(answer, mask_id)
        for start in range(0, len(answer), settings.block_size):
            truth = answer[start : start + settings.block_size]
            num_real = len(truth)
            if num_real < settings.block_size and not sample.is_finished:
                continue  # what follows is not known: it is no stop
            truth = torch.nn.functional.pad(truth, (0, settings.block_size - num_real), value=pad_id)
            draft, count = truth.clone(), max(1, round(share * num_real))
            replacements = plausible[~torch.isin(plausible, stops)]
            for position in torch.randperm(num_real, generator=generator)[:count].tolist():
                wrong = replacements[replacements != truth[position]]
                draft[position] = wrong[torch.randint(len(wrong), (), generator=generator)]
            contexts.append(torch.cat((prompt, answer[:start])))
            drafts.append(draft)
            truths.append(truth)
    truth, draft = torch.stack(truths), torch.stack(drafts)
    device = denoiser.model.device
    finals = [
        denoise_block(
            denoiser,
            [c.to(device) for c in contexts[i : i + _ROWS_AT_ONCE]],
            settings,
            generator,
            initial=draft[i : i + _ROWS_AT_ONCE].to(device),
        ).final.cpu()
        for i in range(0, len(contexts), _ROWS_AT_ONCE)
    ]
    final, is_wrong = torch.cat(finals), draft != truth
    return {
        "num_wrong": float(is_wrong.sum()),
        "repaired": float(((final == truth) & is_wrong).sum() / is_wrong.sum()),
        "broken": float(((final != truth) & ~is_wrong).sum() / (~is_wrong).sum()),
    }
