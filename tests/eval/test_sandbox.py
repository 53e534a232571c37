"""The sandbox runs real programs: good ones, broken ones, hostile ones."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import venv
from pathlib import Path

import pytest

from diffusion_core.config import MIB
from diffusion_core.eval.sandbox import Limits, Outcome, SandboxError, Verdict, run_program

QUICK = Limits(wall_s=8, cpu_s=5, memory_bytes=512 * MIB, file_bytes=4 * MIB, num_processes=16)
BOTH = pytest.mark.parametrize("use_namespaces", [True, False], ids=["namespaces", "hooks"])


async def run(source: str, limits: Limits = QUICK, *, use_namespaces: bool = True) -> Verdict:
    return await run_program(source, limits, use_namespaces=use_namespaces)


def find_programs(mark: str) -> list[str]:
    """Processes whose command line holds ``mark``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if mark.encode() in path.read_bytes() else []
        except OSError:
            continue
    return found


@BOTH
@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("assert 1 + 1 == 2", Outcome.PASSED),
        ("# é\nassert len('\u2028\U0001f600') == 2\n", Outcome.PASSED),
        ("def f():\n    return 1\n\nif True:\n    assert f() == 1", Outcome.PASSED),
        ("assert False", Outcome.FAILED),
        ("def f(:\n", Outcome.FAILED),
        ("x = '''never closed", Outcome.FAILED),
        ("raise SystemExit(3)", Outcome.FAILED),
        ("import sys\nsys.exit(0)", Outcome.EXITED_EARLY),
        ("import os\nos._exit(0)", Outcome.EXITED_EARLY),
        ("import os\nos.abort()", Outcome.KILLED),
        ("input()", Outcome.FAILED),
    ],
)
async def test_outcomes(source: str, outcome: Outcome, use_namespaces: bool) -> None:
    verdict = await run(source, use_namespaces=use_namespaces)
    assert verdict.outcome is outcome, verdict.output
    assert verdict.passed == (outcome is Outcome.PASSED)


@BOTH
async def test_an_endless_loop_ends_at_the_limit_of_processor_time(use_namespaces: bool) -> None:
    verdict = await run("while True: pass", Limits(wall_s=20, cpu_s=1), use_namespaces=use_namespaces)
    assert verdict.outcome is Outcome.KILLED
    assert verdict.seconds < 15


@BOTH
async def test_a_sleeper_is_killed_by_the_clock_with_everything_it_started(use_namespaces: bool) -> None:
    began = time.monotonic()
    mark = f"sleeper-{os.getpid()}-{use_namespaces}"
    source = f"""
import os, subprocess, sys, time
for new_session in (False, True):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "{mark}"], start_new_session=new_session)
time.sleep(60)
"""
    running = asyncio.create_task(run(source, Limits(wall_s=4), use_namespaces=use_namespaces))
    while not find_programs(mark):
        assert not running.done()
        await asyncio.sleep(0.02)
    verdict = await running
    assert verdict.outcome is Outcome.TIMEOUT
    assert time.monotonic() - began < 20
    assert find_programs(mark) == []


@BOTH
async def test_what_a_program_leaves_behind_is_killed(use_namespaces: bool) -> None:
    mark = f"orphan-{os.getpid()}-{use_namespaces}"
    source = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "{mark}"], start_new_session=True)
"""
    verdict = await run(source, use_namespaces=use_namespaces)
    assert verdict.passed
    assert find_programs(mark) == []


@BOTH
async def test_memory_is_bounded(use_namespaces: bool) -> None:
    alone = await run("x = bytearray(1 << 30)", use_namespaces=use_namespaces)
    assert alone.outcome is Outcome.FAILED and "MemoryError" in alone.output
    together = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        x = b"x" * (40 << 20)
        time.sleep(30)
time.sleep(30)
"""
    limits = Limits(wall_s=20, memory_bytes=160 * MIB)
    assert (await run(together, limits, use_namespaces=use_namespaces)).outcome is Outcome.MEMORY


@BOTH
async def test_a_fork_bomb_is_stopped(use_namespaces: bool) -> None:
    # One process makes all others. Where the limit does not hold (for the superuser), a bomb whose children fork
    # too doubles between two looks at it, and on a busy machine it takes the machine along.
    source = "import os, time\nfor _ in range(3000):\n    if os.fork() == 0:\n        time.sleep(60)\ntime.sleep(60)\n"
    verdict = await run(source, use_namespaces=use_namespaces)
    assert verdict.outcome in {Outcome.PROCESSES, Outcome.KILLED, Outcome.TIMEOUT}
    assert verdict.seconds < 15


@BOTH
async def test_the_network_is_out_of_reach(use_namespaces: bool) -> None:
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    connect = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)"
    async with listener:
        verdict = await run(connect, use_namespaces=use_namespaces)
        assert verdict.outcome is Outcome.FAILED
        assert "Error" in verdict.output
        outside = await asyncio.create_subprocess_exec("python3", "-c", connect)
        assert await outside.wait() == 0  # the listener was there


@BOTH
async def test_sockets_of_the_host_are_out_of_reach(use_namespaces: bool) -> None:
    """Those in the file system, as services have them: a read-only one keeps nobody from connecting."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place = f"{folder}/service.sock"
        connect = f"import socket\nsocket.socket(socket.AF_UNIX).connect({place!r})"
        async with await asyncio.start_unix_server(lambda reader, writer: writer.close(), place):
            verdict = await run(connect, use_namespaces=use_namespaces)
            assert verdict.outcome is Outcome.FAILED, verdict.output
            outside = await asyncio.create_subprocess_exec("python3", "-c", connect)
            assert await outside.wait() == 0  # the listener was there
    if use_namespaces and verdict.isolation.files == "read-only":
        seen = await run("import os\nprint(os.listdir('/tmp'), os.listdir('/run'))\nimport asyncio, json\n"
                         "asyncio.run(asyncio.sleep(0))")  # fmt: skip
        assert seen.passed, seen.output
        assert "unmask-sandbox-" in seen.output and Path(folder).name not in seen.output


async def test_an_interpreter_in_a_hidden_folder_still_runs() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        environment = Path(folder) / "environment"
        venv.create(environment, symlinks=True)
        source = f"import sys\nassert sys.prefix == {str(environment)!r}, sys.prefix"
        verdict = await run_program(source, QUICK, python=str(environment / "bin" / "python"))
    assert verdict.passed, verdict.output


@BOTH
async def test_files_outside_the_folder_stay(use_namespaces: bool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for source in (f"import os\nos.remove({str(victim)!r})", f"open({str(victim)!r}, 'w').write('x')"):
        assert (await run(source, use_namespaces=use_namespaces)).outcome is Outcome.FAILED
    assert victim.read_text() == "precious"
    own = "import tempfile\nopen('a', 'w').write('x')\ntempfile.NamedTemporaryFile().write(b'x')"
    assert (await run(own, use_namespaces=use_namespaces)).passed


async def test_files_are_bounded_in_size() -> None:
    one = await run("open('a', 'wb').write(b'x' * (8 << 20))")
    assert one.outcome is Outcome.FAILED
    many = await run("for i in range(9): open(str(i), 'wb').write(b'x' * (1 << 20))")
    if many.isolation.files == "read-only":
        assert many.outcome is Outcome.FAILED


@BOTH
async def test_a_flood_of_output_costs_no_memory(use_namespaces: bool) -> None:
    source = "for _ in range(20000): print('x' * 1000)\nprint('the end')"
    verdict = await run(source, use_namespaces=use_namespaces)
    assert verdict.passed
    assert len(verdict.output) <= 4096 and verdict.output.endswith("the end\n")


async def test_nothing_of_the_users_environment_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    verdict = await run("import os\nassert 'SECRET_TOKEN' not in os.environ\nassert hash('a') == hash('a')")
    assert verdict.passed, verdict.output


async def test_the_hash_seed_is_fixed() -> None:
    outputs = {(await run("print(hash('some text'))")).output for _ in range(2)}
    assert len(outputs) == 1


@BOTH
async def test_isolation_is_reported(use_namespaces: bool) -> None:
    isolation = (await run("pass", use_namespaces=use_namespaces)).isolation
    assert isolation.network in ({"namespace", "interpreter"} if use_namespaces else {"interpreter"})
    assert isolation.processes in ({"namespace", "session"} if use_namespaces else {"session"})


async def test_cancelling_ends_the_program() -> None:
    mark = f"cancelled-{os.getpid()}"
    source = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; time.sleep(60)", "{mark}"])
"""
    running = asyncio.create_task(run(source, Limits(wall_s=60)))
    while not find_programs(mark):
        assert not running.done()
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert find_programs(mark) == []


async def test_an_interpreter_that_is_missing_is_an_error() -> None:
    with pytest.raises(SandboxError, match="absent-python"):
        await run_program("pass", QUICK, python="/absent-python")


async def test_many_at_once() -> None:
    verdicts = await asyncio.gather(*(run(f"assert {index} % 2 == 0") for index in range(8)))
    assert [verdict.passed for verdict in verdicts] == [True, False] * 4
