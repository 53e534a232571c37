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

from diffusion_core.config import ClientConfig, ServerConfig
from diffusion_core.errors import ConfigError

CLIENT_TOKEN_VARIABLE = "UNMASK_CLIENT_TOKEN"  # noqa: S105  # the name of a variable, not a secret
_MAX_TOKEN_BYTES = 4096

logger = logging.getLogger(__name__)


def make_token() -> str:
    """A fresh random token, fit for a header."""
    return secrets.token_urlsafe(32)


def is_authorized(header: str, token: str) -> bool:
    """Whether an ``Authorization`` header carries ``token``; takes the same time however much of it is right."""
    scheme, _, given = header.partition(" ")
    return hmac.compare_digest(given.strip().encode(), token.encode()) and scheme.lower() == "bearer"


def resolve_server_token(config: ServerConfig) -> str:
    """The token the server asks for: the one configured, or a fresh one.

    Raises:
        ConfigError: the token file cannot be read, or the token does not fit a header.
    """
    if config.token_file:
        return _read_token_file(config.token_file, "server.token_file")
    return _check_token(config.token, "server.token") if config.token else make_token()


def resolve_client_token(config: ClientConfig) -> str:
    """The token for the engine at ``config.url``: setting, file, or ``$UNMASK_CLIENT_TOKEN``.

    Raises:
        ConfigError: there is none, its file cannot be read, or it does not fit a header.
    """
    if config.token_file:
        return _read_token_file(config.token_file, "client.token_file")
    if config.token:
        return _check_token(config.token, "client.token")
    if token := os.environ.get(CLIENT_TOKEN_VARIABLE, ""):
        return _check_token(token, CLIENT_TOKEN_VARIABLE)
    raise ConfigError(
        f"client.url is set but no token: give client.token, client.token_file or {CLIENT_TOKEN_VARIABLE} "
        "(the server printed the token when it started)"
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
        return _check_token(content.decode().strip(), f"{setting} ({path})")
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}: {path} is not a text file") from None


def _check_token(token: str, setting: str) -> str:
    if not token:
        raise ConfigError(f"{setting} holds no token")
    if len(token) > _MAX_TOKEN_BYTES:
        raise ConfigError(f"{setting} is longer than {_MAX_TOKEN_BYTES} characters: that is no token")
    # The characters that a header value can carry unchanged.
    if not all("!" <= character <= "~" for character in token):
        raise ConfigError(f"{setting} holds a character that a token cannot have: only ASCII without spaces is allowed")
    return token
