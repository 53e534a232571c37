"""`unmask complete` against a real server process."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.answering_engine import EngineServer
from helpers.unmask_process import Unmask

CONTRACT = {"text", "finish_reason", "nfe", "tokens", "tokens_per_forward", "timings_ms", "model", "policy"}


def write(folder: Path, content: bytes, name: str = "program.py") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_prints_the_suggestion_raw_and_a_summary_apart(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    server.script(**{"def f():\n": "    return 1"})
    done = unmask.run("complete", write(tmp_path, b"def f():\n\nx = 1\n"), "--line", 1, "--character", 0)
    assert (done.code, done.out) == (0, b"    return 1")
    assert "20 ms" in done.err and "2.5 tokens/forward" in done.err and "20 of 30 prompt tokens reused" in done.err
    (request,) = server.requests
    assert (request["prefix"], request["suffix"]) == ("def f():\n", "\nx = 1\n")
    assert (request["language"], request["path"]) == ("python", "program.py")


def test_json_has_the_names_of_the_contract(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    server.script(notice="a smaller model stood in")
    path = write(tmp_path, b"x")
    arguments = ("--json", "--policy", "verified", "--max-tokens", 7, "--single-line", "--model", "m")
    done = unmask.run("complete", path, "--line", 0, "--character", 1, *arguments)
    assert done.code == 0 and done.err == ""
    assert done.json.keys() >= CONTRACT
    assert done.json["timings_ms"] == {"queue": 1.0, "prefill": 4.0, "denoise": 15.0, "total": 20.0}
    assert (done.json["nfe"], done.json["tokens"], done.json["tokens_per_forward"]) == (4, 10, 2.5)
    assert (done.json["model"], done.json["policy"], done.json["finish_reason"]) == ("m", "verified", "stop")
    assert done.json["notice"] == "a smaller model stood in"
    (request,) = server.requests
    assert (request["max_tokens"], request["single_line"], request["model"]) == (7, True, "m")


@pytest.mark.parametrize(("character", "prefix"), [(0, ""), (2, "a\U0001f600"[:1] + "b"), (3, "ab\u2028"), (5, None)])
def test_columns_count_utf16_units(
    unmask: Unmask, server: EngineServer, tmp_path: Path, character: int, prefix: str | None
) -> None:
    path = write(tmp_path, "ab\u2028\U0001f600c\r\nnext".encode())
    done = unmask.run("complete", path, "--line", 0, "--character", character)
    assert done.code == 0
    expected = "ab\u2028\U0001f600" if prefix is None else prefix
    assert server.requests[0]["prefix"] == expected


@pytest.mark.parametrize(
    ("line", "character", "message"),
    [(2, 0, "2 lines"), (0, 4, "has 3"), (0, 2, "inside a character"), (-1, 0, "-1"), (0, -1, "-1")],
)
def test_a_position_the_file_does_not_have_is_bad_usage(
    unmask: Unmask, server: EngineServer, tmp_path: Path, line: int, character: int, message: str
) -> None:
    path = write(tmp_path, "a\U0001f600\nb".encode())
    done = unmask.run("complete", path, "--line", line, "--character", character)
    assert (done.code, done.out) == (2, b"")
    assert message in done.err
    assert server.requests == []


def test_an_empty_document(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    done = unmask.run("complete", write(tmp_path, b""), "--line", 0, "--character", 0)
    assert done.code == 0
    assert (server.requests[0]["prefix"], server.requests[0]["suffix"]) == ("", "")
    assert unmask.run("complete", write(tmp_path, b""), "--line", 1, "--character", 0).code == 2


def test_the_model_sees_line_feeds_and_the_document_gets_its_own(
    unmask: Unmask, server: EngineServer, tmp_path: Path
) -> None:
    server.script(**{"a\nb\n": "x\ny\n"})
    done = unmask.run("complete", write(tmp_path, b"\xef\xbb\xbfa\r\nb\r\nc"), "--line", 2, "--character", 0)
    assert done.out == b"x\r\ny\r\n"
    assert server.requests[0]["suffix"] == "c"


def test_a_file_that_is_not_utf8_is_refused(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    done = unmask.run("complete", write(tmp_path, b"x = '\xe9'\n"), "--line", 0, "--character", 0)
    assert done.code == 1
    assert "not UTF-8 (byte 5)" in done.err and "Traceback" not in done.err
    assert server.requests == []


def test_errors_of_the_engine_are_one_line_and_exit_1(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    server.script(x={"error": "context_too_long"})
    done = unmask.run("complete", write(tmp_path, b"x"), "--line", 0, "--character", 1, "--json")
    assert (done.code, done.out) == (1, b"")
    assert done.err == "error: scripted context_too_long\n"


def test_a_document_over_the_limit_is_refused_by_the_server(unmask: Unmask, tmp_path: Path) -> None:
    path = write(tmp_path, b"x = 1\n" * 1_600_000)
    done = unmask.run("complete", path, "--line", 0, "--character", 0)
    assert done.code == 1
    assert done.err.startswith("error: ") and "max_request_bytes" in done.err


def test_a_document_of_5_mb_goes_through_whole(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    text = "x = 1\n" * 850_000
    done = unmask.run("complete", write(tmp_path, text.encode()), "--line", 400_000, "--character", 0)
    assert done.code == 0
    assert server.requests[0]["prefix"] + server.requests[0]["suffix"] == text


def test_a_wrong_token_and_no_engine(unmask: Unmask, tmp_path: Path) -> None:
    path = write(tmp_path, b"x")
    (tmp_path / "token").write_text("wrong")
    (tmp_path / "token").chmod(0o600)
    position = ("--line", 0, "--character", 0)
    wrong = unmask.run("complete", path, *position, "--token-file", tmp_path / "token")
    assert wrong.code == 1 and "token" in wrong.err
    nobody = unmask.run("complete", path, *position, "--url", "http://127.0.0.1:9")
    assert nobody.code == 1 and "127.0.0.1:9" in nobody.err


def test_bad_usage(unmask: Unmask, tmp_path: Path) -> None:
    path = write(tmp_path, b"x")
    position = ("--line", 0, "--character", 0)
    assert unmask.run("complete", tmp_path / "absent.py", *position).code == 2
    assert unmask.run("complete", path, "--line", 0).code == 2
    assert unmask.run("complete", path, *position, "--policy", "best").code == 2
    assert unmask.run("complete", path, *position, "--max-tokens", 99999).code == 2
    assert unmask.run("complete", path, *position, "--url", "ftp://x").code == 2
    done = unmask.run("complete", path, *position, UNMASK_ENGINE_MODELL="x")
    assert done.code == 2 and "UNMASK_ENGINE_MODELL" in done.err
