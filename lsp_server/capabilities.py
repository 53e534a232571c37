"""What the server announces, as plain JSON: made without the LSP types, whose import alone takes a third of a second.

The features register themselves with pygls under the same names; a test holds pygls' own account to this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EDIT = "unmask.edit"
ACCEPT_EDIT = "unmask.acceptEdit"
REJECT_EDIT = "unmask.rejectEdit"
EDIT_SCOPE = "unmask.editScope"
WARM_EDIT = "unmask.warmEdit"
LIST_MODELS = "unmask.listModels"
STATUS = "unmask.status"
RESTART_ENGINE = "unmask.restartEngine"
TOGGLE = "unmask.toggle"
ACCEPTED = "unmask.accepted"
# Commands of the client's own that our code actions carry.
CLIENT_EDIT = "unmask.client.edit"
COMMANDS = (
    STATUS, RESTART_ENGINE, TOGGLE, ACCEPTED, LIST_MODELS, EDIT, ACCEPT_EDIT, REJECT_EDIT, EDIT_SCOPE, WARM_EDIT,
)  # fmt: skip

CODE_ACTION_KINDS = ("quickfix", "refactor.rewrite")
ALL_NOTEBOOKS = "*"
COMPLETION_TRIGGERS = (" ", ".", "(", "[", "{", ",", "=", ":", "/")
ENCODINGS = ("utf-8", "utf-16", "utf-32")
DEFAULT_ENCODING = "utf-16"
INCREMENTAL = 2


def server_capabilities(client: Mapping[str, Any]) -> dict[str, Any]:
    """The capabilities for a client with these capabilities.

    Completion is only offered to clients that do not know inline completion: they would show the text twice.
    """
    general = client.get("general") or {}
    wanted = general.get("positionEncodings") or ()
    encoding = next((encoding for encoding in wanted if encoding in ENCODINGS), DEFAULT_ENCODING)
    capabilities: dict[str, Any] = {
        "positionEncoding": encoding,
        "textDocumentSync": {"openClose": True, "change": INCREMENTAL, "save": True},
        "executeCommandProvider": {"commands": list(COMMANDS)},
        "inlineCompletionProvider": {},
        "codeActionProvider": {"codeActionKinds": list(CODE_ACTION_KINDS), "resolveProvider": False},
        "workspace": {"workspaceFolders": {"supported": True, "changeNotifications": True}, "fileOperations": {}},
    }
    if client.get("notebookDocument") is not None:
        capabilities["notebookDocumentSync"] = {"notebookSelector": [{"notebook": ALL_NOTEBOOKS}], "save": False}
    if (client.get("textDocument") or {}).get("inlineCompletion") is None:
        capabilities["completionProvider"] = {
            "triggerCharacters": list(COMPLETION_TRIGGERS),
            "resolveProvider": False,
        }
    return capabilities
