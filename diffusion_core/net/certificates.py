"""The server's own certificate: checked before it is used, and replaced without dropping a connection."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path

from diffusion_core.errors import ConfigError

_DAY_S = 86400
_WARN_DAYS = 14
# OpenSSL's numbers for what is wrong with a certificate's dates.
_NOT_YET_VALID, _EXPIRED = 9, 10

logger = logging.getLogger(__name__)


class Certificate:
    """Certificate chain and key, and the TLS context that serves them.

    Raises:
        ConfigError: a file cannot be read, holds something else, has expired, or the two do not belong together.
    """

    def __init__(self, certificate: str, key: str) -> None:
        self._certificate, self._key = Path(certificate).expanduser(), Path(key).expanduser()
        self.context = self._serving = _check(self._certificate, self._key)
        self.context.sni_callback = self._choose

    @property
    def paths(self) -> tuple[Path, Path]:
        """The files, to be watched."""
        return self._certificate, self._key

    def reload(self) -> bool:
        """Read the files again; whether they were good. Bad ones change nothing and are told in the log.

        Connections that are open keep what they were opened with.
        """
        try:
            self._serving = _check(self._certificate, self._key)
        except ConfigError as error:
            logger.error("the certificate was not replaced: %s", error)
            return False
        logger.info("the certificate was read anew")
        return True

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Give a new connection what was last found good; asked with every greeting, whatever name is in it.

        The files are not read a second time for that: they may be in the middle of being replaced, and a certificate
        that is loaded without its key would turn everybody away.
        """
        connection.context = self._serving


def _make_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def refuse_password() -> str:
        raise ConfigError(f"server.tls_key: {key} is encrypted: give a key without a password, readable by this user")

    for setting, path in (("server.tls_certificate", certificate), ("server.tls_key", key)):
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise ConfigError(f"{setting}: cannot read {path}: {error.strerror}") from None
    try:
        context.load_cert_chain(certificate, key, password=refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"server.tls_key: {key} is not the key of the first certificate in {certificate} "
                "(server.tls_certificate)"
            ) from None
        raise ConfigError(_describe_culprit(certificate, key)) from None


def _describe_culprit(certificate: Path, key: Path) -> str:
    """Which of the two files is not what it should be: OpenSSL does not say."""
    try:
        ssl.create_default_context(cafile=str(certificate))
    except ssl.SSLError:
        return f"server.tls_certificate: {certificate} holds no certificate in PEM"
    return f"server.tls_key: {key} holds no key in PEM"


def _check(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context that has shaken hands with ourselves: what a client would find out, found out first."""
    server = _make_context()
    _load_chain(server, certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is what is trusted here
    client.load_verify_locations(cafile=str(certificate))
    try:
        expires_at = _shake_hands(client, server)
    except ssl.SSLCertVerificationError as error:
        reason = {_EXPIRED: "has expired", _NOT_YET_VALID: "is not valid yet: see the clock of this machine"}.get(
            error.verify_code, f"cannot be used by a server: {error.verify_message}"
        )
        raise ConfigError(f"server.tls_certificate: {certificate} {reason}") from None
    days = (expires_at - time.time()) / _DAY_S
    if days < _WARN_DAYS:
        logger.warning("server.tls_certificate: %s expires in %.0f days", certificate, days)
    return server


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> float:
    """When the server's certificate expires, in seconds since 1970.

    Raises:
        ssl.SSLCertVerificationError: the client does not accept it.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    found = ends[0].getpeercert() or {}
    return ssl.cert_time_to_seconds(str(found["notAfter"]))
