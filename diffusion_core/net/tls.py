"""Whom a client trusts, how it proves who it is, and what to do when one of the two fails."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from diffusion_core.errors import ConfigError

_CERTIFICATE_SUFFIXES = frozenset({".pem", ".crt", ".cer"})


def make_ssl_context(*, ca_file: str = "", cert_file: str = "", key_file: str = "") -> ssl.SSLContext:
    """A client's TLS context: ``ca_file`` (a PEM file, or a folder of such) replaces what the system trusts.

    ``cert_file`` is the client's own certificate, its key beside it in the same file or in ``key_file``.

    Raises:
        ConfigError: a file cannot be used; the message names the setting and the file.
    """
    context = _trust_authorities(Path(ca_file).expanduser()) if ca_file else _trust_system()
    if cert_file:
        _show_certificate(context, Path(cert_file).expanduser(), key_file)
    return context


def explain_untrusted(address: str, error: ssl.SSLCertVerificationError, *, ca_file: str) -> str:
    """Why a server's certificate was refused, and which setting changes that."""
    reason = error.verify_message or str(error)
    if "mismatch" in reason or "not valid for" in reason:
        return f"the certificate of {address} is for another name ({reason}): use that name in client.url"
    if "expired" in reason or "not yet valid" in reason:
        return f"the certificate of {address} is out of date ({reason}): it has to be renewed on the server"
    if ca_file:
        return (
            f"the certificate of {address} was not signed by client.ca_file ({ca_file}): "
            f"set client.ca_file to the authority that signed it ({reason})"
        )
    return f"the certificate of {address} is not trusted: set client.ca_file to the authority that signed it ({reason})"


def find_cause(error: BaseException, cls: type[ssl.SSLError]) -> ssl.SSLError | None:
    """The error of class ``cls`` that ``error`` was made from, however many libraries have wrapped it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, cls):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _trust_system() -> ssl.SSLContext:
    # The store that the system's own programs use: where companies put their authorities.
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _trust_authorities(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file = path
    try:
        for file in _certificate_files(path):
            context.load_verify_locations(cafile=str(file))
    except OSError as error:  # a file without certificates is an ssl.SSLError, which is an OSError
        raise ConfigError(f"client.ca_file: cannot use {file}: {error.strerror or error}") from None
    if not context.get_ca_certs():
        raise ConfigError(f"client.ca_file: {path} holds no certificate authority (*.pem, *.crt, *.cer)")
    return context


def _certificate_files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.iterdir() if file.suffix.lower() in _CERTIFICATE_SUFFIXES)
    else:
        yield path


def _show_certificate(context: ssl.SSLContext, cert_file: Path, key_file: str) -> None:
    key = Path(key_file).expanduser() if key_file else None
    setting, path = ("client.key_file", key) if key else ("client.cert_file", cert_file)

    def refuse_to_ask() -> str:
        # Without this OpenSSL asks on the terminal, where a language server has none.
        raise ConfigError(f"{setting}: the key in {path} has a password: give one without")

    try:
        context.load_cert_chain(cert_file, key, password=refuse_to_ask)
    except OSError as error:
        named = cert_file if key is None else f"{cert_file} with {key}"
        raise ConfigError(f"client.cert_file: cannot use {named}: {error.strerror or error}") from None
