"""The server as a process: its address, its token, its signals, its files."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from helpers.running_server import wait_until
from helpers.scripted_engine import FAILING_MODEL, make_scripted_engine

from diffusion_core.config import EngineConfig, ServerConfig
from diffusion_core.errors import ConfigError
from diffusion_core.net import engine_process
from diffusion_core.net.protocol import CONTENT_TYPE, Message, WireError, decode, encode
from diffusion_core.net.quiet_logs import describe_exception
from diffusion_core.net.serve import run_server
from diffusion_core.net.state_files import EngineState, StateFiles, try_lock
from diffusion_core.requests import CompletionRequest, Health, Result

PROGRAM = (
    "import sys\n"
    "from pathlib import Path\n"
    "from diffusion_core.config import EngineConfig, ServerConfig\n"
    "from diffusion_core.net.serve import run_server\n"
    "from helpers.scripted_engine import make_scripted_engine\n"
    "state_file = Path(sys.argv[1]) if sys.argv[1:] else None\n"
    "run_server(EngineConfig(), ServerConfig(port=0, drain_s=2), state_file=state_file, make=make_scripted_engine)\n"
)


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.fixture
def by_hand() -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A server started as a person does; its address and token are read from the terminal."""
    process = start()
    assert process.stderr is not None
    try:
        url = re.fullmatch(r"Unmask engine on (http://127\.0\.0\.1:\d+)\n", process.stderr.readline())
        token = re.fullmatch(r"token \(new at each start.*\): (\S+)\n", process.stderr.readline())
        assert url and token
        while "listening" not in process.stderr.readline():
            pass
        yield process, url[1], token[1]
    finally:
        process.kill()
        process.communicate()


def ask(url: str, token: str, path: str, message: Message | None = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}", "content-type": CONTENT_TYPE}
    content = None if message is None else encode(message)
    return httpx.request(
        "POST" if message else "GET", f"{url}/v1/{path}", headers=headers, content=content, trust_env=False
    )


def test_a_person_is_told_address_and_token(by_hand: tuple[subprocess.Popen[str], str, str]) -> None:
    _, url, token = by_hand
    assert decode(ask(url, token, "health").content, Health).status == "ready"
    assert ask(url, "another", "health").status_code == 401


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_request_under_way_finish(
    by_hand: tuple[subprocess.Popen[str], str, str], number: signal.Signals
) -> None:
    process, url, token = by_hand
    request = encode(CompletionRequest(prefix="abc", max_tokens=40))
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        head = f"POST /v1/complete HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n"
        head += f"content-type: {CONTENT_TYPE}\r\ncontent-length: {len(request)}\r\n\r\n"
        connection.sendall(head.encode() + request)
        wait_until(lambda: decode(ask(url, token, "health").content, Health).num_active == 1)
        process.send_signal(number)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert decode(answer.partition(b"\r\n\r\n")[2], Result).text == "cba"
    assert process.wait(timeout=10) == 0


def test_a_request_that_does_not_end_is_told_that_the_engine_stops(
    by_hand: tuple[subprocess.Popen[str], str, str],
) -> None:
    process, url, token = by_hand
    request = encode(CompletionRequest(prefix="abc", max_tokens=8000))
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        head = f"POST /v1/complete HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        head += f"content-type: {CONTENT_TYPE}\r\ncontent-length: {len(request)}\r\n\r\n"
        connection.sendall(head.encode() + request)
        wait_until(lambda: decode(ask(url, token, "health").content, Health).num_active == 1)
        process.terminate()
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert b" 503 " in answer.partition(b"\r\n")[0]
    assert decode(answer.partition(b"\r\n\r\n")[2], WireError).code == "closed"
    assert process.wait(timeout=10) == 0


def test_the_state_file_exists_while_the_server_listens(tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    process = start(str(path))
    try:
        wait_until(path.exists, timeout_s=20)
        state = StateFiles(path).read_state()
        assert state is not None
        assert state.pid == process.pid
        assert path.stat().st_mode & 0o777 == 0o600
        assert ask(f"http://127.0.0.1:{state.port}", state.token, "health").status_code == 200
        assert [each.name for each in tmp_path.iterdir()] == [path.name]
        process.terminate()
        _, printed = process.communicate(timeout=10)
        assert not path.exists()
        assert state.token not in printed
    finally:
        process.kill()
        process.communicate()


def test_a_state_file_of_another_process_is_left_alone(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "engine.json")
    files.write_state(EngineState(pid=1, port=2, token="t", version="0", started=0.5))
    files.remove_state(pid=3)
    assert files.state.exists()
    files.remove_state(pid=1)
    assert not files.state.exists()


def test_logs_of_engines_long_gone_are_removed_and_nothing_else(tmp_path: Path) -> None:
    names = [
        "engine-a.log",
        "engine-a.log.1",
        "engine-a.stderr",
        "engine-a.failed.json",
        "engine-a.owner.lock",
        "b.log",
    ]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9, 1e9))
    (tmp_path / "engine-c.log").touch()
    StateFiles(tmp_path / "engine-d.json").remove_outdated()
    assert {path.name for path in tmp_path.iterdir()} == {"engine-a.owner.lock", "b.log", "engine-c.log"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{damaged",
        b"[]",
        b"\xff",
        b'{"pid": 1, "port": 2, "token": "t", "version": "0"}',
        b'{"pid": "1", "port": 2, "token": "t", "version": "0", "started": 1.0}',
        b'{"pid": true, "port": 2, "token": "t", "version": "0", "started": 1.0}',
    ],
)
def test_a_damaged_state_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    files = StateFiles(tmp_path / "engine.json")
    files.state.write_bytes(content)
    assert files.read_state() is None


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port}: Address already in use; choose another"):
            run_server(EngineConfig(), ServerConfig(port=port), make=make_scripted_engine)
    with pytest.raises(ConfigError, match=r"server\.host is 'no\.such\.host\.invalid'"):
        run_server(EngineConfig(), ServerConfig(host="no.such.host.invalid"), make=make_scripted_engine)


def run_engine_process(files: StateFiles, *, model: str = "x") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "helpers.scripted_engine", "--state-file", str(files.state)]
    command += ["--engine", f'{{"model": "{model}"}}', "--idle-exit-s", "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_second_engine_process_steps_back(tmp_path: Path) -> None:
    """Even when the launcher that started the first has been killed before it could say so."""
    files = StateFiles(tmp_path / "engine.json")
    first, second = run_engine_process(files), run_engine_process(files)
    try:
        wait_until(lambda: (first.poll() is None) != (second.poll() is None), timeout_s=20)
        loser, winner = (first, second) if first.poll() is not None else (second, first)
        assert loser.returncode == engine_process.EXIT_ANOTHER_RUNS
        state = files.read_state()
        assert state is not None
        assert state.pid == winner.pid
        assert files.is_owned()
        assert files.read_failure() is None
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert not files.is_owned()


def test_an_engine_process_that_cannot_start_leaves_word(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "engine.json")
    process = run_engine_process(files, model=FAILING_MODEL)
    _, printed = process.communicate(timeout=20)
    assert process.returncode == engine_process.EXIT_FAILED
    failure = files.read_failure()
    assert failure is not None
    assert (failure.pid, failure.code) == (process.pid, "checkpoint")
    assert "unmask pull small" in str(failure.as_exception())
    assert "Traceback" not in printed
    assert not files.state.exists()


def test_an_engine_process_takes_no_unknown_setting(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "engine.json")
    arguments = ["--state-file", str(files.state), "--engine", '{"modle": "x"}', "--idle-exit-s", "0"]
    code = f"from diffusion_core.net.engine_process import main; raise SystemExit(main({arguments!r}))"
    subprocess.run([sys.executable, "-c", code], check=False, env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    failure = files.read_failure()
    assert failure is not None
    assert "TypeError" in failure.message


def test_the_log_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        engine_process._log_to(path)
        for _ in range(30_000):
            logging.getLogger("test").info("%s", "x" * 100)
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
    assert path.stat().st_size <= 1024 * 1024
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 2 * 1024 * 1024


def test_an_exception_is_described_without_its_message() -> None:
    def fail() -> None:
        raise KeyError("s3cret = 1")

    try:
        try:
            fail()
        except KeyError as error:
            raise RuntimeError("def s3cret(): ...") from error
    except RuntimeError as error:
        described = describe_exception(error)
    assert "s3cret" not in described
    assert re.search(r"builtins\.RuntimeError at test_serve\.py:\d+ test_an_exception", described)
    assert re.search(r"caused by builtins\.KeyError at test_serve\.py:\d+ fail", described)


def test_a_lock_is_held_by_one_and_freed_by_the_operating_system(tmp_path: Path) -> None:
    path = tmp_path / "some.lock"
    code = f"from diffusion_core.net.state_files import try_lock; import time; lock = try_lock({str(path)!r}); "
    code += "print(lock is not None, flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    assert try_lock(path) is None
    holder.kill()
    holder.communicate()
    began = time.monotonic()
    while (lock := try_lock(path)) is None:
        assert time.monotonic() - began < 5
    lock.release()
