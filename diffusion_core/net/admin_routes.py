"""Administration over HTTP, as JSON, for tokens with the scope ``admin`` (docs/admin-api.md has the shapes)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from diffusion_core.accounts.durations import NEVER, parse_duration
from diffusion_core.accounts.naming import parse_scopes
from diffusion_core.accounts.records import LIMIT_NAMES, UserChanges, as_json
from diffusion_core.callers import Caller, Limits, Scope
from diffusion_core.errors import Forbidden, InvalidRequest, NotFound, UnmaskError
from diffusion_core.net.exchange import CALLER_KEY, REQUEST_ID_KEY, ClientGoneError, retry_headers
from diffusion_core.net.json_fields import read_fields
from diffusion_core.net.quiet_logs import describe_exception

if TYPE_CHECKING:
    from diffusion_core.accounts.store import Accounts

logger = logging.getLogger(__name__)

_LIMITS = dict.fromkeys(LIMIT_NAMES, (int, type(None)))
_TEXT = (str,)
_MAX_ID = 2**31 - 1
_NO_STORE = {"cache-control": "no-store"}

Handler = Callable[[Request, str], Awaitable[Response]]


class AdminRoutes:
    """Users, tokens, workspaces and the audit log. Without ``accounts`` (a server with one token) they are not there.

    Work on the database runs in threads: a slow one must not hold up anybody's completion.
    """

    def __init__(self, accounts: Accounts | None, defaults: Limits) -> None:
        self._accounts, self._defaults = accounts, defaults

    def routes(self) -> list[Route]:
        """All routes, under ``/v1/admin``."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/limits", self.limits),
            ("GET", "/users", self.users),
            ("POST", "/users", self.add_user),
            ("GET", "/users/{name}", self.user),
            ("PATCH", "/users/{name}", self.change_user),
            ("DELETE", "/users/{name}", self.remove_user),
            ("GET", "/tokens", self.tokens),
            ("POST", "/tokens", self.create_token),
            ("DELETE", "/tokens/{id}", self.revoke_token),
            ("GET", "/workspaces", self.workspaces),
            ("POST", "/workspaces", self.add_workspace),
            ("DELETE", "/workspaces/{name}", self.remove_workspace),
            ("GET", "/audit", self.audit),
        ]
        return [Route(f"/v1/admin{path}", _Endpoint(handle), methods=[method]) for method, path, handle in table]

    async def limits(self, _: Request, __: str) -> Response:
        """The limits of users who have none of their own, and whether there are users."""
        kind = "single" if self._accounts is None else "database"
        return _answer({"users": kind, "defaults": asdict(self._defaults)})

    async def users(self, _: Request, __: str) -> Response:
        """All users."""
        found = await asyncio.to_thread(self._store.users)
        return _answer({"users": [as_json(user) for user in found]})

    async def user(self, request: Request, _: str) -> Response:
        """One user."""
        return _answer(as_json(await asyncio.to_thread(self._store.user, request.path_params["name"])))

    async def add_user(self, request: Request, actor: str) -> Response:
        """Make a user."""
        known = {"name": _TEXT, "workspace": (str, type(None)), **_LIMITS}
        given = await read_fields(request, known, required=("name",))
        name = given.pop("name")
        made = await asyncio.to_thread(self._store.add_user, name, actor=actor, changes=UserChanges(**given))
        return _answer(as_json(made), 201)

    async def change_user(self, request: Request, actor: str) -> Response:
        """Change what is given of a user."""
        known = {"is_disabled": (bool,), "workspace": (str, type(None)), **_LIMITS}
        changes = UserChanges(**await read_fields(request, known))
        name = request.path_params["name"]
        return _answer(as_json(await asyncio.to_thread(self._store.change_user, name, changes, actor=actor)))

    async def remove_user(self, request: Request, actor: str) -> Response:
        """Remove a user and their tokens."""
        await asyncio.to_thread(self._store.remove_user, request.path_params["name"], actor=actor)
        return _nothing()

    async def tokens(self, request: Request, _: str) -> Response:
        """Tokens without their secrets, also ended ones; with ``?user=NAME`` those of one."""
        found = await asyncio.to_thread(self._store.tokens, request.query_params.get("user"))
        return _answer({"tokens": [as_json(token) for token in found]})

    async def create_token(self, request: Request, actor: str) -> Response:
        """Make a token; the only answer that holds its secret."""
        known = {"user": _TEXT, "name": _TEXT, "scopes": (list,), "expires": _TEXT}
        given = await read_fields(request, known, required=("user", "scopes"))
        scopes = parse_scopes(given["scopes"])
        lifetime = parse_duration(given.get("expires", NEVER))
        token, secret = await asyncio.to_thread(
            self._store.create_token,
            given["user"],
            actor=actor,
            scopes=scopes,
            name=given.get("name", ""),
            lifetime=lifetime,
        )
        return _answer({**as_json(token), "token": secret}, 201)

    async def revoke_token(self, request: Request, actor: str) -> Response:
        """End a token."""
        token_id = _number(request.path_params["id"], "the ID of a token")
        return _answer(as_json(await asyncio.to_thread(self._store.revoke_token, token_id, actor=actor)))

    async def workspaces(self, _: Request, __: str) -> Response:
        """All workspaces with their members."""
        found = await asyncio.to_thread(self._store.workspaces)
        return _answer({"workspaces": [as_json(workspace) for workspace in found]})

    async def add_workspace(self, request: Request, actor: str) -> Response:
        """Make a workspace."""
        given = await read_fields(request, {"name": _TEXT}, required=("name",))
        return _answer(as_json(await asyncio.to_thread(self._store.add_workspace, given["name"], actor=actor)), 201)

    async def remove_workspace(self, request: Request, actor: str) -> Response:
        """Remove a workspace; its members stay."""
        await asyncio.to_thread(self._store.remove_workspace, request.path_params["name"], actor=actor)
        return _nothing()

    async def audit(self, request: Request, _: str) -> Response:
        """What administrators did, the newest first; ``?limit=N`` and ``?before=ID`` turn pages."""
        query = request.query_params
        limit = _number(query.get("limit", "100"), "limit")
        before = _number(query["before"], "before") if "before" in query else None
        found = await asyncio.to_thread(self._store.audit, limit, before=before)
        return _answer({"audit": [as_json(entry) for entry in found]})

    @property
    def _store(self) -> Accounts:
        if self._accounts is None:
            raise NotFound("this server has one token and no users: start it with --users database")
        return self._accounts


class _Endpoint:
    """Lets administrators through and turns what a handler raises into an answer."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        request_id = request.scope[REQUEST_ID_KEY]
        try:
            caller: Caller = request.scope[CALLER_KEY]
            if Scope.ADMIN not in caller.scopes:
                raise Forbidden("this token does not allow admin: ask for one with that scope")
            return await self._handle(request, caller.user)
        except ClientGoneError:
            return Response(status_code=400)  # nobody reads it
        except UnmaskError as error:
            return _fail(error)
        except Exception as error:  # the last resort: an answer instead of a dropped connection
            logger.error("%s failed unexpectedly: %s", request_id, describe_exception(error))
            return _fail(UnmaskError(f"internal error (request {request_id}): the server's log has more"))


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and 0 < int(text) <= _MAX_ID):
        raise InvalidRequest(f"{what}: a whole number above 0 expected")
    return int(text)


def _answer(document: dict[str, Any], status: int = 200) -> JSONResponse:
    return JSONResponse(document, status, headers=_NO_STORE)


def _nothing() -> Response:
    return Response(status_code=204, headers=_NO_STORE)


def _fail(error: UnmaskError) -> JSONResponse:
    answer = _answer(
        {"error": {"code": error.code, "message": str(error), "retryable": error.retryable}}, error.http_status
    )
    for name, value in retry_headers(error.http_status, error):
        answer.headers[name.decode()] = value.decode()
    return answer
