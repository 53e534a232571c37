"""Ray Serve's choice of a replica: the one that a request's key belongs to, unless it is full or gone."""

from __future__ import annotations

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from diffusion_core.net.affinity import rank

KEY = "key"  # the keyword argument of a replica's methods that this looks at
_NUMBER_MARK = "#"
_EXACT_MARK = "!"


def numbered_key(number: int, *, is_exact: bool = False) -> str:
    """The key of the replica with this number. Counted round and round, in an order that lasts while they do.

    ``is_exact``: where it is full, the request waits for room there instead of going to the next one.
    """
    return f"{_NUMBER_MARK}{number}{_EXACT_MARK if is_exact else ''}"


class AffinityRouter(RequestRouter):
    """Tries the replicas in the order of :func:`rank`; Ray asks each how full it is and takes the first with room."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """One replica a rank; all of them in one rank, where the emptiest is taken, for a request without a key."""
        key = pending_request.kwargs.get(KEY, "") if pending_request is not None else ""
        if not key:
            return [candidate_replicas]
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        if key.startswith(_NUMBER_MARK):
            names = sorted(by_name)
            first = int(key.strip(_NUMBER_MARK + _EXACT_MARK)) % len(names)
            order = names[first:] + names[:first]
            return [[by_name[name]] for name in (order[:1] if key.endswith(_EXACT_MARK) else order)]
        return [[by_name[name]] for name in rank(key, by_name)]
