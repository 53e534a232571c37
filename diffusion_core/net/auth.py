"""Bearer tokens: where they come from, how they are compared. A token guards even loopback.

Any program of any user on this machine can reach a loopback port, and so can any web page through the browser.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from diffusion_core.callers import OWNER, Caller, Limits, Scope
from diffusion_core.config import ClientConfig, ServerConfig
from diffusion_core.errors import ConfigError, Unauthorized
from diffusion_core.net.token_store import find_token

if TYPE_CHECKING:
    from diffusion_core.accounts.store import Accounts

CLIENT_TOKEN_VARIABLE = "UNMASK_CLIENT_TOKEN"  # noqa: S105  # the name of a variable, not a secret
_MAX_TOKEN_BYTES = 4096

logger = logging.getLogger(__name__)


def make_token() -> str:
    """A fresh random token, fit for a header."""
    return secrets.token_urlsafe(32)


def parse_bearer(header: str) -> str:
    """The token that an ``Authorization`` header carries; empty if it is of another scheme, or none."""
    scheme, _, given = header.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def is_authorized(header: str, token: str) -> bool:
    """Whether an ``Authorization`` header carries ``token``; takes the same time however much of it is right."""
    return hmac.compare_digest(parse_bearer(header).encode(), token.encode()) and bool(token)


class Authenticator(Protocol):
    """Tells who sent a request."""

    async def identify(self, authorization: str) -> Caller:
        """The caller whom the ``Authorization`` header names.

        Raises:
            Unauthorized: the token is missing, wrong, expired or revoked; the message does not say which.
        """
        ...


@runtime_checkable
class KeepsAccounts(Protocol):
    """An authenticator whose users can be administered."""

    @property
    def accounts(self) -> Accounts:
        """Where they are kept."""
        ...


def default_limits(config: ServerConfig) -> Limits:
    """The limits of users who have none of their own."""
    return Limits(requests_per_minute=config.requests_per_minute, requests_at_once=config.requests_at_once)


class SingleToken:
    """One token, one user who may do everything."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def identify(self, authorization: str) -> Caller:
        """The owner, if the header carries the token."""
        if not is_authorized(authorization, self._token):
            raise Unauthorized("the bearer token is missing or wrong")
        return OWNER


class MetricsToken:
    """Another token beside those of users: it opens the metrics, for a monitoring system that must do nothing else."""

    def __init__(self, token: str, users: Authenticator) -> None:
        self._token, self._users = token, users

    async def identify(self, authorization: str) -> Caller:
        """The monitoring system, or whom else the header names."""
        if is_authorized(authorization, self._token):
            return Caller(user="metrics", space="metrics", scopes=frozenset({Scope.METRICS}))
        return await self._users.identify(authorization)


def add_metrics_token(config: ServerConfig, users: Authenticator) -> Authenticator:
    """``users``, and the metrics token if one is configured.

    Raises:
        ConfigError: the token file cannot be read, or the token does not fit a header.
    """
    if config.metrics_token_file:
        return MetricsToken(_read_token_file(config.metrics_token_file, "server.metrics_token_file"), users)
    if config.metrics_token:
        return MetricsToken(check_token(config.metrics_token, "server.metrics_token"), users)
    return users


def resolve_server_token(config: ServerConfig) -> str:
    """The token the server asks for: the one configured, or a fresh one.

    Raises:
        ConfigError: the token file cannot be read, or the token does not fit a header.
    """
    if config.token_file:
        return _read_token_file(config.token_file, "server.token_file")
    return check_token(config.token, "server.token") if config.token else make_token()


def resolve_client_token(config: ClientConfig, url: str = "") -> str:
    """The token for the engine at ``url`` (empty: ``config.url``).

    In this order: the file or the token of the configuration, ``$UNMASK_CLIENT_TOKEN``, what `unmask login` keeps for
    the address, what it keeps for ``config.url``. Blocks while a keyring is asked.

    Raises:
        ConfigError: there is none, its file cannot be read, or it does not fit a header.
    """
    if config.token_file:
        return _read_token_file(config.token_file, "client.token_file")
    if config.token:
        return check_token(config.token, "client.token")
    if token := os.environ.get(CLIENT_TOKEN_VARIABLE, ""):
        return check_token(token, CLIENT_TOKEN_VARIABLE)
    for address in dict.fromkeys((url or config.url, config.url)):
        if token := find_token(address):
            return check_token(token, f"the token kept for {address}")
    raise ConfigError(
        f"client.url is set but no token: run `unmask login {url or config.url}`, or give client.token, "
        f"client.token_file or {CLIENT_TOKEN_VARIABLE}"
    )


def _read_token_file(name: str, setting: str) -> str:
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path}: {error.strerror}") from None
    if mode & stat.S_IROTH:
        logger.warning("%s: every user of this machine can read %s: run chmod 600 on it", setting, path)
    try:
        return check_token(content.decode().strip(), f"{setting} ({path})")
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}: {path} is not a text file") from None


def check_token(token: str, setting: str) -> str:
    """The token, if it can be one.

    Raises:
        ConfigError: it cannot; the message names ``setting``, never the token.
    """
    if not token:
        raise ConfigError(f"{setting} holds no token")
    if len(token) > _MAX_TOKEN_BYTES:
        raise ConfigError(f"{setting} is longer than {_MAX_TOKEN_BYTES} characters: that is no token")
    # The characters that a header value can carry unchanged.
    if not all("!" <= character <= "~" for character in token):
        raise ConfigError(f"{setting} holds a character that a token cannot have: only ASCII without spaces is allowed")
    return token
