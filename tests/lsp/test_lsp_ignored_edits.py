"""Edits and code actions of files that are to be left alone."""

import pytest
from helpers.lsp_client import LspError


async def test_an_ignored_file_is_neither_edited_nor_offered_actions(engine, connect, tmp_path):
    engine.edits = {"rename": "y = 1\n"}
    uri, other = (tmp_path / ".env").as_uri(), (tmp_path / "main.py").as_uri()
    span = {"start": {"line": 0, "character": 0}, "end": {"line": 1, "character": 0}}
    async with connect(edit_prompt=True) as editor:
        for each in (uri, other):
            editor.open("x = 1\n", uri=each)
        with pytest.raises(LspError, match="is ignored"):
            await editor.execute("unmask.edit", {"uri": uri, "range": span, "instruction": "rename"})
        await editor.execute("unmask.warmEdit", {"uri": uri, "range": span})
        actions = {"range": span, "context": {"diagnostics": []}}
        assert await editor.request("textDocument/codeAction", {"textDocument": {"uri": uri}, **actions}) is None
        assert await editor.request("textDocument/codeAction", {"textDocument": {"uri": other}, **actions})
        assert (await editor.execute("unmask.edit", {"uri": other, "range": span, "instruction": "rename"}))["edits"]
        assert engine.warmed == [] and len(engine.asked_edits) == 1
