"""How the libraries below torch behave is said before they load, and never against the user's own word."""

import os
import platform
import subprocess
import sys
import threading

import pytest

from diffusion_core.native import KEPT_PRIMITIVES, SPIN_COUNT, compute_apart, prepare_libraries

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


PROBES = """
import os, time, torch
from diffusion_core.model.int4_cpu import why_no_int4_kernel
from diffusion_core.model.packed import max_equal_rows
from diffusion_core.model.quantized import why_not_quantized
count = lambda: len(os.listdir("/proc/self/task"))
torch.set_num_threads(3)
before = count()
why_not_quantized("cpu"), why_no_int4_kernel(), max_equal_rows(torch.float32)
give_up = time.monotonic() + 20
while (after := count()) > before and time.monotonic() < give_up:
    time.sleep(0.05)  # a team ends a little after its thread
torch.randn(1000, 1000) @ torch.randn(1000, 1000)
print(after - before, count() - before)
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="threads are counted in /proc")
def test_probes_leave_no_team_of_threads() -> None:
    done = subprocess.run([sys.executable, "-c", PROBES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    after_probes, after_a_product = map(int, done.stdout.split())
    assert after_probes == 0 and after_a_product >= 1, "a product in the same thread leaves one"


def test_what_is_computed_apart_comes_back() -> None:
    assert compute_apart(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        compute_apart(lambda: 1 // 0)
