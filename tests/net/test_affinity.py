"""Which replica a request belongs to."""

from __future__ import annotations

from collections import Counter

from diffusion_core.callers import OWNER, Caller
from diffusion_core.net.affinity import affinity_key, rank
from diffusion_core.requests import CompletionRequest, EditRequest, WarmRequest

KEYS = [f"key{number}" for number in range(1000)]
REPLICAS = [f"replica{number}" for number in range(4)]
OTHER = Caller(user="b", space="b", scopes=OWNER.scopes)


def test_a_file_of_a_user_goes_to_one_replica_whatever_is_asked_about_it() -> None:
    completion = CompletionRequest(prefix="a", path="src/a.py")
    key = affinity_key(OWNER, completion)
    assert key == affinity_key(OWNER, CompletionRequest(prefix="abc", suffix="d", path="src/a.py"))
    assert key == affinity_key(OWNER, EditRequest(selection="x", instruction="go", path="src/a.py"))
    assert key == affinity_key(OWNER, WarmRequest(completion=completion))
    assert key != affinity_key(OWNER, CompletionRequest(prefix="a", path="src/b.py"))
    assert key != affinity_key(OTHER, completion)
    assert "a.py" not in key


def test_a_request_without_a_file_goes_by_the_beginning_of_its_text() -> None:
    start = "def f():\n" * 40
    assert affinity_key(OWNER, CompletionRequest(prefix=start)) == affinity_key(
        OWNER, CompletionRequest(prefix=start + "    return 1\n")
    )
    assert affinity_key(OWNER, CompletionRequest(prefix="x" + start)) != affinity_key(
        OWNER, CompletionRequest(prefix=start)
    )


def test_keys_are_spread_and_only_those_of_a_lost_replica_move() -> None:
    homes = {key: rank(key, REPLICAS)[0] for key in KEYS}
    assert min(Counter(homes.values()).values()) > 200
    left = REPLICAS[1:]
    moved = [key for key in KEYS if rank(key, left)[0] != homes[key]]
    assert set(moved) == {key for key in KEYS if homes[key] == REPLICAS[0]}
    assert min(Counter(rank(key, left)[0] for key in moved).values()) > len(moved) / 5
    assert rank("key", reversed(REPLICAS)) == rank("key", REPLICAS)
