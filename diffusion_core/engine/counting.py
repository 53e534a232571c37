"""A snapshot of what an engine has done and is doing, out of its parts."""

from __future__ import annotations

from collections.abc import Sequence

from diffusion_core.engine.counters import EngineCounters, Tally
from diffusion_core.engine.job import Job
from diffusion_core.engine.prefix_cache import PrefixCache


def count(tally: Tally, waiting: Sequence[Job], active: Sequence[Job], caches: Sequence[PrefixCache]) -> EngineCounters:
    """Figures of an engine with these jobs and, one for each model, kept caches."""
    kinds = [2 if job.is_warm_up else job.priority for job in waiting]
    return EngineCounters(
        num_forwards=tally.num_forwards,
        num_rows=tally.num_rows,
        batch_sizes=tuple(tally.batch_sizes),
        num_begun=tally.num_begun,
        num_cache_hits=tally.num_cache_hits,
        num_prefilled_tokens=tally.num_prefilled_tokens,
        num_reused_tokens=tally.num_reused_tokens,
        num_answer_tokens=tally.num_answer_tokens,
        num_completed=tally.num_completed,
        num_cancelled=tally.num_cancelled,
        num_late=tally.num_late,
        num_failed=tally.num_failed,
        num_refused=tally.num_refused,
        num_queued_completions=kinds.count(0),
        num_queued_edits=kinds.count(1),
        num_queued_warm_ups=kinds.count(2),
        num_active=len(active),
        num_users=len({job.caller.user for job in (*waiting, *active)}),
        active_cache_bytes=sum(job.sequence.cache.num_bytes for job in active if job.sequence is not None),
        kept_cache_bytes=sum(cache.num_bytes for cache in caches),
        num_kept_caches=sum(cache.num_entries for cache in caches),
    )
