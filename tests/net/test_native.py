"""How the libraries below torch behave is said before they load, and never against the user's own word."""

import os

import pytest

from diffusion_core.native import KEPT_PRIMITIVES, SPIN_COUNT, prepare_libraries

THREADS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
KEPT = ("DNNL_PRIMITIVE_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


@pytest.fixture(autouse=True)
def _no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in THREADS + KEPT:
        monkeypatch.setenv(each, "")
        monkeypatch.delenv(each)


def test_spinning_and_keeping_are_bounded() -> None:
    prepare_libraries()
    assert os.environ["GOMP_SPINCOUNT"] == str(SPIN_COUNT)
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == str(KEPT_PRIMITIVES)


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "5")])
def test_the_environment_says_how_threads_wait(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    prepare_libraries()
    assert os.environ[name] == value
    assert ("GOMP_SPINCOUNT" in os.environ) == (name == "GOMP_SPINCOUNT")


@pytest.mark.parametrize("name", KEPT)
def test_the_environment_says_how_much_is_kept(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "7")
    prepare_libraries()
    assert os.environ[name] == "7"
    assert sum(each in os.environ for each in KEPT) == 1
