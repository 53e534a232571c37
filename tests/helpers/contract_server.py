"""The real language server with scripted answers where it has none of its own: alternatives, scopes, models.

``python -m helpers.contract_server FOLDER`` serves on stdio. ``FOLDER/contract.json`` says what is answered and may
change at any time: ``alternatives`` (texts that follow the best one when invoked), ``scope``, ``models``. With
``--old`` the server does not know the new requests. What the editor sent of them goes to ``FOLDER/sent.jsonl``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lsprotocol import types

import lsp_server.server
from lsp_server import capabilities, launch
from lsp_server.edit_messages import EditCommand
from lsp_server.features import inline_completion, lifecycle
from lsp_server.reporting import invalid_params

NOTIFICATIONS = ("$/unmask/didShow", "$/unmask/didPartiallyAccept", "$/unmask/didDismiss")
COMMANDS = {"scope": "unmask.editScope", "warm": "unmask.warmEdit", "models": "unmask.listModels"}


class Contract:
    """What is answered, and a record of what was asked."""

    def __init__(self, folder: Path, *, old: bool) -> None:
        self._rules = folder / "contract.json"
        self._sent = folder / "sent.jsonl"
        self._old = old

    @property
    def rules(self) -> dict[str, Any]:
        return dict(json.loads(self._rules.read_text()))

    def record(self, name: str, argument: Any) -> None:
        with self._sent.open("a") as stream:
            stream.write(json.dumps([name, lifecycle.as_plain(argument)]) + "\n")

    def command(self, rule: str, name: str, real: Any) -> Any:
        """The rule's answer, else the server's own."""

        async def run(params: types.ExecuteCommandParams) -> Any:
            self.record(name, (params.arguments or [{}])[0])
            rules = self.rules
            return rules[rule] if rule in rules or real is None else await real(params)

        return run

    def notification(self, name: str) -> Any:
        def take(params: Any) -> None:
            self.record(name, params)

        return take

    def edit(self, real: Any) -> Any:
        """An edit of the server's; ``refine`` is refused as by an older server, or else recorded."""

        async def run(params: types.ExecuteCommandParams) -> Any:
            (argument,) = params.arguments or [{}]
            if "refine" in argument:
                if self._old:
                    raise invalid_params("refine is not a field of an edit")
                self.record("refine", argument)
                if "refine" not in EditCommand.__dataclass_fields__:
                    argument = {name: value for name, value in argument.items() if name != "refine"}
                    params = types.ExecuteCommandParams(command=params.command, arguments=[argument])
            return await real(params)

        return run

    def inline(self, real: Any) -> Any:
        async def run(ls: Any, params: types.InlineCompletionParams) -> types.InlineCompletionList:
            answer: types.InlineCompletionList = await real(ls, params)
            if params.context.trigger_kind is types.InlineCompletionTriggerKind.Invoked and answer.items:
                best = answer.items[0]
                for number, text in enumerate(self.rules.get("alternatives", ())):
                    command = types.Command(
                        title="Suggestion accepted",
                        command=capabilities.ACCEPTED,
                        arguments=[{"id": f"other-{number}"}],
                    )
                    answer.items.append(types.InlineCompletionItem(insert_text=text, range=best.range, command=command))
            return answer

        return run


def main(folder: Path, *, old: bool) -> int:
    contract = Contract(folder, old=old)
    known = {} if old else COMMANDS
    others = tuple(name for name in capabilities.COMMANDS if name not in COMMANDS.values())
    capabilities.COMMANDS = (*others, *known.values())
    inline_completion.inline_completion = contract.inline(inline_completion.inline_completion)
    create = lsp_server.server.create_server

    def create_server(**options: Any) -> Any:
        server = create(**options)
        registry = server.protocol.fm
        for rule, name in known.items():
            registry.commands[name] = contract.command(rule, name, registry.commands.get(name))
        registry.commands[capabilities.EDIT] = contract.edit(registry.commands[capabilities.EDIT])
        for name in NOTIFICATIONS:
            registry.features[name] = contract.notification(name)
        return server

    lsp_server.server.create_server = create_server
    return launch.launch("warning", None)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), old="--old" in sys.argv))
