"""What other packages log through the language server."""

import io
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from pygls.protocol.json_rpc import JsonRPCProtocol

from lsp_server.logs import PayloadFilter


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the language server's log gets of pygls' records."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(PayloadFilter())
    logger = logging.getLogger("pygls")
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


def test_a_cancel_that_crosses_its_answer_is_not_logged(log: io.StringIO):
    # The very code of pygls, so that another wording of a later release is noticed.
    protocol = SimpleNamespace(_request_futures={})
    JsonRPCProtocol._handle_cancel_notification(protocol, "7")  # type: ignore[arg-type]
    assert log.getvalue() == ""


def test_a_foreign_record_keeps_its_template_and_loses_its_payload(log: io.StringIO):
    logging.getLogger("pygls.protocol").warning("Something about %s", "def secret(): ...")
    assert log.getvalue() == "Something about %s\n"
