r"""Golden files of the filters: ``golden/<filter>/*.txt``; in ``golden/all`` every filter runs, in order.

A file begins with settings (``language:``, ``single_line:``, ``invoked:``, ``may_replace:``), then come
``--- document`` with ``‸`` at the cursor, ``--- answer``, and either ``--- accepted`` (the document after the answer
was accepted) or ``--- dropped`` with the reason. ``→`` is a tab; ``␍␊`` or ``␍`` at the end of a line are its
terminator; ``·`` is a space that would not be seen; ``⏎`` ends a text whose last line ends with a line break.
"""

from pathlib import Path

import pytest

from lsp_server import postprocess
from lsp_server.positions import Encoding
from lsp_server.postprocess import Drop, Proposal, place_at
from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax import parse_snapshot
from lsp_server.text_sync import split_lines

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.rglob("*.txt"))
FILTERS = {apply.__module__.rsplit(".", 1)[-1]: apply for apply in postprocess.FILTERS}


def read(path):
    head, *sections = path.read_text(encoding="utf-8").split("\n--- ")
    settings = dict(line.split(": ") for line in head.splitlines())
    parts = {}
    for section in sections:
        name, _, body = section.partition("\n")
        body = body.replace("→", "\t").replace("·", " ").replace("␍␊\n", "\r\n").replace("␍\n", "\r")
        parts[name] = body.removesuffix("\n").removesuffix("⏎")
    return settings, parts


def accept(apply, settings, parts):
    before, after = parts["document"].split("‸")
    lines = tuple(split_lines(before + after))
    language = settings.get("language", "python")
    snapshot = Snapshot(uri="u", version=1, language=language, encoding=Encoding.UTF16, lines=lines)
    point = Point(len(split_lines(before)) - 1, len(split_lines(before)[-1]))
    options = {name: settings.get(name, default) == "true" for name, default in
               {"single_line": "false", "invoked": "false", "may_replace": "true"}.items()}  # fmt: skip
    proposal = apply(parts["answer"], place_at(snapshot, point, tree=parse_snapshot(snapshot), **options))
    if isinstance(proposal, Drop):
        return {"dropped": proposal.reason}
    assert "\n" not in after[: proposal.num_replaced]
    return {"accepted": before + proposal.text + after[proposal.num_replaced :]}


def test_every_filter_has_golden_files():
    folders = {path.parent.name for path in FILES}
    assert folders == {*FILTERS, "all"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden(path):
    settings, parts = read(path)
    name = path.parent.name
    one = FILTERS.get(name)
    apply = postprocess.refine if one is None else lambda text, place: one(Proposal(text), place)
    expected = {key: parts[key] for key in ("accepted", "dropped") if key in parts}
    assert len(expected) == 1
    assert accept(apply, settings, parts) == expected
