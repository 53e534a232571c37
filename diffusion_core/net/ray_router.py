"""Ray Serve's choice of a replica: the one that a request's key belongs to, unless it is full or gone."""

from __future__ import annotations

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from diffusion_core.net.affinity import rank

KEY = "key"  # the keyword argument of a replica's methods that this looks at
_NUMBER_MARK = "#"


def numbered_key(number: int) -> str:
    """The key of the replica with this number. Counted round and round, in an order that lasts while they do."""
    return f"{_NUMBER_MARK}{number}"


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
            first = int(key.removeprefix(_NUMBER_MARK)) % len(names)
            return [[by_name[name]] for name in names[first:] + names[:first]]
        return [[by_name[name]] for name in rank(key, by_name)]
