"""workspace/executeCommand, and the small commands: status, restartEngine, toggle, accepted."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from diffusion_core.errors import UnmaskError
from lsp_server import capabilities
from lsp_server.completer import Ask
from lsp_server.features.inline_completion import end_of
from lsp_server.model_list import known_models
from lsp_server.reporting import internal_error, invalid_params, request_failed
from lsp_server.server import UnmaskServer

logger = logging.getLogger(__name__)


def register(server: UnmaskServer) -> None:
    """Add the dispatcher and the commands."""
    server.feature(types.WORKSPACE_EXECUTE_COMMAND)(execute_command)
    server.command(capabilities.STATUS)(status)
    server.command(capabilities.RESTART_ENGINE)(restart_engine)
    server.command(capabilities.TOGGLE)(toggle)
    server.command(capabilities.ACCEPTED)(accepted)
    server.command(capabilities.LIST_MODELS)(list_models)


async def execute_command(ls: UnmaskServer, params: types.ExecuteCommandParams) -> Any:
    """Run a command as a part of this request, so that cancelling the request cancels the command."""
    handler = ls.protocol.fm.commands.get(params.command)
    if handler is None:
        raise invalid_params(f"there is no command {params.command}")
    try:
        return await handler(params)
    except JsonRpcException:
        raise
    except UnmaskError as error:
        logger.info("%s: %s", params.command, type(error).__name__)
        raise request_failed(error) from None
    except Exception as error:  # the user gets one short sentence, the log the place
        raise internal_error(logger, params.command, error) from None


async def status(ls: UnmaskServer, _: types.ExecuteCommandParams) -> dict[str, Any]:
    """The state of the server, and why suggestions were not made."""
    board = ls.session.board
    return {
        **board.current.to_params(),
        "lastReason": board.last_reason,
        "reasons": dict(board.reasons),
        "numSuggestionsKept": len(ls.session.suggestions),
        "enabled": ls.session.settings.completion.enabled,
    }


async def restart_engine(ls: UnmaskServer, _: types.ExecuteCommandParams) -> None:
    """Stop the local engine and start it again; open a new connection to a remote one."""
    await ls.session.restart_engine()


async def toggle(ls: UnmaskServer, _: types.ExecuteCommandParams) -> bool:
    """Switch suggestions on or off."""
    return ls.session.toggle()


async def list_models(ls: UnmaskServer, _: types.ExecuteCommandParams) -> list[dict[str, Any]]:
    """The models that can be chosen, for an editor's menu."""
    return await asyncio.to_thread(known_models)  # reads files


async def accepted(ls: UnmaskServer, params: types.ExecuteCommandParams) -> None:
    """A suggestion was taken: let the engine read on to where the cursor is now."""
    argument = params.arguments[0] if params.arguments else None
    suggestion_id = argument.get("id") if isinstance(argument, dict) else None
    shown = ls.session.shown.pop(suggestion_id, None) if isinstance(suggestion_id, str) else None
    snapshot = ls.session.snapshot(shown.uri) if shown else None
    if not isinstance(suggestion_id, str) or shown is None or snapshot is None:
        return
    if shown.start.line < len(snapshot.lines):
        ls.session.stats.accepted(suggestion_id, snapshot.position_at(shown.start), snapshot.encoding)
    end = end_of(shown.start, shown.text)
    if end.line < len(snapshot.lines) and end.column <= len(snapshot.content(end.line)):
        ls.completer.warm(Ask(snapshot, end, invoked=False))
