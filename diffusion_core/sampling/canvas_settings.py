"""From a request's decoding parameters to the policy that denoises a canvas."""

from __future__ import annotations

from diffusion_core.model.config import DiffusionConfig
from diffusion_core.requests import CanvasCache, DecodingParams, Policy
from diffusion_core.sampling.canvas_policy import CanvasPolicy, CanvasSettings, PathPlanningPolicy
from diffusion_core.sampling.commit_rules import CommitRule, ScheduledRule, ThresholdRule, constant
from diffusion_core.sampling.infill_length import AnswerLength, GivenLength, LengthSearch
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.policy import DecodingPolicy


def make_canvas_policy(
    policy: Policy,
    decoding: DecodingParams,
    chooser: TokenChooser,
    contract: DiffusionConfig,
    *,
    max_tokens: int,
    fills_in: bool,
    stop_ids: frozenset[int],
) -> DecodingPolicy:
    """The policy for an answer of at most ``max_tokens``; with ``fills_in`` its length is searched for."""
    cache = CanvasCache.PREFIX if decoding.cache is CanvasCache.AUTO else decoding.cache
    keeps_keys = cache is not CanvasCache.NONE and policy is not Policy.P2
    length: AnswerLength = GivenLength(max_tokens)
    if fills_in:
        length = LengthSearch(chooser, max_tokens=max_tokens, keeps_prompt=keeps_keys)
    if policy is Policy.P2:
        return PathPlanningPolicy(chooser, length, num_per_step=decoding.num_per_step)
    rule: CommitRule = ThresholdRule(decoding.tau)
    if policy is Policy.FIXED:
        rule = ScheduledRule(constant(decoding.num_per_step), contract.certainty)
    settings = CanvasSettings(
        block_length=decoding.block_size or contract.block_size,
        # What was committed by number alone is not doubted for its probability.
        tau_low=decoding.tau_low if policy is Policy.CONFIDENCE else 0.0,
        cache=cache,
    )
    return CanvasPolicy(chooser, rule, length, settings, stop_ids)
