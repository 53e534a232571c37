"""Tokens that `unmask login` keeps: in the keyring of the user if there is one, else in a file only they may read."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from diffusion_core.config import state_folder
from diffusion_core.errors import ConfigError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

_SERVICE = "unmask"
_FILE = "tokens.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a token was put, in words; ``is_keyring`` tells the two kinds of places apart."""

    description: str
    is_keyring: bool


def account_of(url: str) -> str:
    """The name under which the token for ``url`` is kept: the same for all spellings of one address."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}{parts.path.rstrip('/')}"


def store_token(url: str, token: str) -> Place:
    """Keep ``token`` for ``url`` in place of an older one.

    Raises:
        ConfigError: neither the keyring nor the file takes it.
    """
    account = account_of(url)
    backend = _find_keyring()
    if backend is not None:
        try:
            backend.set_password(_SERVICE, account, token)
        except Exception as error:  # any backend has its own errors: locked, no D-Bus, refused by the user
            logger.warning("the keyring does not take the token (%s): a file is used", type(error).__name__)
        else:
            _write({name: kept for name, kept in _read().items() if name != account})
            return Place(f"the keyring ({backend.name})", is_keyring=True)
    _write({**_read(), account: token})
    return Place(f"{token_file()} (readable by you alone)", is_keyring=False)


def find_token(url: str) -> str:
    """The token kept for ``url``; empty if there is none. The keyring may ask the user to unlock it."""
    account = account_of(url)
    if kept := _read().get(account):
        return kept
    backend = _find_keyring()
    if backend is None:
        return ""
    try:
        return backend.get_password(_SERVICE, account) or ""
    except Exception as error:  # as above
        logger.warning("the keyring cannot be read: %s", type(error).__name__)
        return ""


def forget_token(url: str) -> bool:
    """Remove the token for ``url`` wherever it is kept; whether there was one."""
    account, kept = account_of(url), _read()
    was_kept = kept.pop(account, None) is not None
    if was_kept:
        _write(kept)
    backend = _find_keyring()
    if backend is not None:
        with contextlib.suppress(Exception):  # that there is none, or that the keyring is locked
            backend.delete_password(_SERVICE, account)
            was_kept = True
    return was_kept


def token_file() -> Path:
    """The file for machines without a keyring."""
    return state_folder() / _FILE


def _find_keyring() -> KeyringBackend | None:
    """The user's keyring; None where the library is not installed or no service stands behind it."""
    try:
        import keyring
    except ImportError:
        return None
    backend = keyring.get_keyring()
    return backend if backend.priority > 0 else None  # the library's stand-ins for none have 0 or less


def _read() -> dict[str, str]:
    path = token_file()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}): remove it and run `unmask login`") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ConfigError(f"{path} is damaged: remove it and run `unmask login`")
    return found


def _write(tokens: dict[str, str]) -> None:
    path = token_file()
    if not tokens:
        path.unlink(missing_ok=True)
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _replacing(path) as descriptor:
            os.write(descriptor, json.dumps(tokens, indent=1).encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; set UNMASK_STATE_DIR to another folder") from None


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[int]:
    """A new file that takes the place of ``path`` when it is complete; mode 0600 from the start."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        yield descriptor
        os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        Path(name).unlink()
        raise
    os.close(descriptor)
    Path(name).replace(path)
