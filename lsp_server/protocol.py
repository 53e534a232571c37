"""pygls' protocol with four corrections.

- pygls keeps its own copy of every document, which is wrong after a form feed or U+2028 (see ``text_sync.py``). Its
  document and notebook handlers are taken out, so no second copy exists.
- Cancelling ``workspace/executeCommand`` answers the client but lets the command run on: ours is a plain coroutine.
- A request with malformed parameters, before ``initialize`` or after ``shutdown`` gets no answer: here it gets one.
- ``exit`` ends the loop instead of raising SystemExit inside of it, so that resources are released.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcServerNotInitialized,
)
from pygls.protocol import LanguageServerProtocol, lsp_method

if TYPE_CHECKING:
    from lsp_server.server import UnmaskServer

logger = logging.getLogger(__name__)

REPLACED_BUILTINS = (
    types.TEXT_DOCUMENT_DID_OPEN,
    types.TEXT_DOCUMENT_DID_CHANGE,
    types.TEXT_DOCUMENT_DID_CLOSE,
    types.NOTEBOOK_DOCUMENT_DID_OPEN,
    types.NOTEBOOK_DOCUMENT_DID_CHANGE,
    types.NOTEBOOK_DOCUMENT_DID_CLOSE,
    types.WORKSPACE_EXECUTE_COMMAND,
)


class UnmaskProtocol(LanguageServerProtocol):
    """See the module docstring."""

    _server: UnmaskServer
    # The id of the initialize request if it was answered before this protocol existed (``handshake.py``).
    answered: int | str | None = None

    def _register_builtin_features(self) -> None:
        super()._register_builtin_features()  # type: ignore[no-untyped-call]
        for method in REPLACED_BUILTINS:
            del self.fm.builtin_features[method]

    @lsp_method(types.EXIT)
    def lsp_exit(self, *_: Any) -> None:  # type: ignore[override]
        """End the message loop; the process ends with 0 after a shutdown and with 1 without one."""
        self._server.stop(exit_code=0 if self._shutdown else 1)

    def structure_message(self, data: dict[str, Any]) -> Any:
        """Typed message; a malformed request is answered here and becomes None."""
        try:
            return super().structure_message(data)
        except JsonRpcException:
            method = data.get("method")
            logger.warning("malformed message %s", method if isinstance(method, str) else "without a method")
            if "method" in data and isinstance(data.get("id"), (int, str)):
                self._refuse(data["id"], JsonRpcInvalidParams(message=f"the parameters of {method} are malformed"))
            return None

    def handle_message(self, message: Any) -> None:
        """Dispatch; requests that cannot be served in this state are answered with an error."""
        if message is None:
            return
        is_request = hasattr(message, "method") and hasattr(message, "id")
        if is_request and self._shutdown:
            self._refuse(message.id, JsonRpcInvalidRequest(message="the server is shutting down"))
        elif is_request and self._workspace is None and message.method != types.INITIALIZE:
            self._refuse(message.id, JsonRpcServerNotInitialized(message="initialize comes first"))
        else:
            super().handle_message(message)

    def _send_response(
        self, msg_id: int | str, result: Any | None = None, error: types.ResponseError | None = None
    ) -> None:
        if msg_id == self.answered:
            self.answered = None
            self._result_types.pop(msg_id, None)
        else:
            super()._send_response(msg_id, result, error)

    def _refuse(self, message_id: int | str, error: JsonRpcException) -> None:
        self._send_response(message_id, error=error.to_response_error())
