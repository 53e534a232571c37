"""textDocument/completion: the same text for editors that do not know inline completion."""

from __future__ import annotations

import re

from lsprotocol import types

from lsp_server.capabilities import COMPLETION_TRIGGERS
from lsp_server.features.inline_completion import accepted_command, suggest
from lsp_server.server import UnmaskServer
from lsp_server.snapshot import Point

MAX_LABEL = 60
MAX_WORD = 200
_WORD_AT_END = re.compile(r"\w*$")


def register(server: UnmaskServer) -> None:
    """Add the feature."""
    options = types.CompletionOptions(trigger_characters=list(COMPLETION_TRIGGERS), resolve_provider=False)
    server.feature(types.TEXT_DOCUMENT_COMPLETION, options)(completion)


async def completion(ls: UnmaskServer, params: types.CompletionParams) -> types.CompletionList:
    """At most one entry, which replaces the word before the cursor by itself and the suggestion.

    Editors filter entries by the word before the cursor, so the entry must begin with it.
    Asking while typing and asking by a key cannot be told apart here: both count as automatic.
    """
    suggestions = await suggest(ls, params.text_document.uri, params.position, invoked=False)
    if not suggestions:
        return types.CompletionList(is_incomplete=True, items=[])
    suggestion = suggestions[0]
    snapshot, start = suggestion.snapshot, suggestion.start
    head = snapshot.content(start.line)[: start.column]
    word = _WORD_AT_END.findall(head[-MAX_WORD:])[0]
    text = word + suggestion.text
    label = text.strip().split("\n", 1)[0].rstrip("\r")
    replaced = snapshot.range_between(Point(start.line, start.column - len(word)), suggestion.end)
    item = types.CompletionItem(
        label=label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…",
        kind=types.CompletionItemKind.Snippet,
        detail="Unmask",
        documentation=types.MarkupContent(kind=types.MarkupKind.Markdown, value=f"```{snapshot.language}\n{text}\n```"),
        filter_text=text,
        sort_text="~",  # after the entries of language servers, which are facts
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(range=replaced, new_text=text),
        command=accepted_command(ls, suggestion),
    )
    return types.CompletionList(is_incomplete=True, items=[item])
