"""Log lines as text and as JSON: one record one line, with the request's id, without messages of exceptions."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from diffusion_core.net.observing.logs import JsonFormatter, TextFormatter, add_request_id, log_loop_errors
from diffusion_core.net.observing.observation import CURRENT, Observation

CANARY = "kanarienvogel"


def make_record(message: str, *arguments: object, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("a.logger", logging.WARNING, __file__, 1, message, arguments, info)
    add_request_id(record)
    return record


def failed() -> Exception:
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        return error


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_an_exception_is_a_type_and_a_place(formatter: logging.Formatter) -> None:
    line = formatter.format(make_record("request %s failed", "r-1", error=failed()))
    assert CANARY not in line
    assert "builtins.KeyError at test_log_lines.py" in line
    assert "r-1" in line


def test_what_another_handler_formatted_is_not_taken_over() -> None:
    record = make_record("failed", error=failed())
    logging.Formatter().format(record)
    assert CANARY in record.exc_text
    assert CANARY not in TextFormatter().format(record)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_record_is_one_line_whatever_is_in_it(formatter: logging.Formatter) -> None:
    line = formatter.format(make_record("a %s", "forged\n2026-01-01 INFO \x1b[31m\x85\u2028 line"))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_lines_of_a_request_have_its_id() -> None:
    token = CURRENT.set(Observation(request_id="r-2"))
    try:
        record = make_record("something happened")
        assert json.loads(JsonFormatter().format(record))["request"] == "r-2"
        assert TextFormatter().format(record).endswith("something happened (request r-2)")
    finally:
        CURRENT.reset(token)
    assert "request" not in json.loads(JsonFormatter().format(make_record("something else")))


async def test_a_task_that_fails_unseen_is_logged_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_errors)
    loop.call_exception_handler({"message": "Task exception was never retrieved", "exception": failed()})
    assert "KeyError at test_log_lines.py" in caplog.text
    assert CANARY not in caplog.text
