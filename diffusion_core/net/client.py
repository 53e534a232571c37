"""The engine at the other end of an HTTP connection. Needs neither torch nor a web framework.

httpx is imported with the first request, because importing it takes longer than a language server may take to start.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import logging
import os
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from diffusion_core.errors import Closed, ConfigError, ProtocolMismatch, Unreachable, Untrusted
from diffusion_core.net.answers import raise_for_answer, read_messages
from diffusion_core.net.observing.request_ids import valid_traceparent
from diffusion_core.net.protocol import CONTENT_TYPE, M, Message, WarmDone, encode
from diffusion_core.net.tls import explain_untrusted, find_cause, make_ssl_context
from diffusion_core.requests import CompletionRequest, EditRequest, Health, PreviewFrame, Result, WarmRequest

if TYPE_CHECKING:
    import httpx

# Shorter than the server's keep-alive, so that a connection is not reused just as the server closes it.
_KEEP_ALIVE_S = 60.0
_HEALTH_TIMEOUT_S = 10.0  # no work is done for it

logger = logging.getLogger(__name__)


class HttpEngineClient:
    """An :class:`~diffusion_core.requests.EngineClient` over HTTP.

    Cancelling a call closes its connection, which makes the server stop the work. Not for several event loops.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        proxy: str = "",
        connect_timeout_s: float = 5.0,
        request_timeout_s: float = 300.0,
        health_timeout_s: float | None = None,
    ) -> None:
        """``health_timeout_s``: how long :meth:`health` may take; None: as long as a server needs that is well."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not _has_valid_port(parts):
            raise ConfigError("client.url must look like https://host:port")
        if parts.username or parts.password:
            raise ConfigError("client.url holds a user or a password: give a token instead")
        self.address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._token = token
        self._ca_file, self._cert_file, self._key_file = ca_file, cert_file, key_file
        self._proxy = proxy
        self._connect_timeout_s = connect_timeout_s
        self._request_timeout_s = request_timeout_s
        if health_timeout_s is None:
            health_timeout_s = min(request_timeout_s, _HEALTH_TIMEOUT_S)
        self._health_timeout_s = health_timeout_s
        self._is_loopback = is_loopback(parts.hostname)
        self._http: httpx.AsyncClient | None = None
        self._num_active = 0
        self._is_retired = False
        self._is_closed = False
        self._has_answered = False
        if parts.scheme == "http" and not self._is_loopback:
            logger.warning("%s is not encrypted: the token and the code can be read on the way", self.address)

    def has_token(self, token: str) -> bool:
        """Whether this is the token that it sends."""
        return token == self._token

    def __repr__(self) -> str:
        return f"HttpEngineClient({self.address!r}, token=***)"

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        return await self._call_once("complete", request, Result)

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream preview frames, then the result. Leaving early (``aclose``) cancels the work on the server."""
        result: Result | None = None
        async with self._exchange("POST", "edit", request, PreviewFrame, Result) as messages:
            async for message in messages:
                if result is not None:
                    raise ProtocolMismatch(f"{self.address} sent more after the result")
                if isinstance(message, Result):
                    result = message  # kept until the stream has ended, so that its connection can be used again
                elif isinstance(message, PreviewFrame):
                    yield message
        if result is None:
            raise Unreachable(f"{self.address} ended the edit without a result")
        yield result

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        await self._call_once("warm", request, WarmDone)

    async def health(self) -> Health:
        """The state of the engine."""
        return await self._call_once("health?decoding&load", None, Health)

    async def aclose(self) -> None:
        """Close all connections; requests under way break off."""
        self._is_closed = True
        if self._http is not None:
            await self._http.aclose()

    async def retire(self) -> None:
        """Close as soon as no request is under way; to be called by who sends no more."""
        self._is_retired = True
        if not self._num_active:
            await self.aclose()

    async def _call_once(self, path: str, message: Message | None, expected: type[M]) -> M:
        answer: M | None = None
        async with self._exchange("POST" if message else "GET", path, message, expected) as messages:
            async for each in messages:
                if answer is not None:
                    raise ProtocolMismatch(f"{self.address} sent more than one answer")
                answer = each
        if answer is None:
            raise ProtocolMismatch(f"{self.address} sent an empty answer")
        return answer

    @asynccontextmanager
    async def _exchange(
        self, method: str, path: str, message: Message | None, *expected: type[M]
    ) -> AsyncIterator[AsyncIterator[M]]:
        """Send one request and hand out the messages of its answer; an error on the wire is raised."""
        if "httpx" not in sys.modules:
            # A tenth of a second in which the editor's keystrokes would wait, were it not in a thread.
            await asyncio.to_thread(importlib.import_module, "httpx")
        import httpx

        headers = {"accept-encoding": "identity"}
        # A trace that this process is a part of, as its starter says: it goes on in the server.
        if traceparent := valid_traceparent(os.environ.get("TRACEPARENT", "")):
            headers["traceparent"] = traceparent
        content = None
        if message is not None:
            content = encode(message)
            headers["content-type"] = CONTENT_TYPE
        timeout_s = self._request_timeout_s if message else self._health_timeout_s
        timeout = httpx.Timeout(timeout_s, connect=self._connect_timeout_s)
        request = self._open().stream(method, f"/v1/{path}", content=content, headers=headers, timeout=timeout)
        self._num_active += 1
        try:
            async with request as response:
                self._has_answered = True
                raise_for_answer(response, self.address)
                async with aclosing(read_messages(response, self.address, *expected)) as messages:
                    yield messages
        except httpx.HTTPError as error:
            raise self._explain(error, timeout_s) from error
        except httpx.StreamError as error:
            raise Unreachable(f"the connection to {self.address} broke off ({type(error).__name__})") from None
        finally:
            self._num_active -= 1
            if self._is_retired and not self._num_active:
                await self.aclose()

    def _explain(self, error: httpx.HTTPError, timeout_s: float) -> Unreachable:
        """What a failure on the way means, and which setting changes it."""
        import httpx

        through = " through the proxy" if self._is_proxied() else ""
        untrusted = find_cause(error, ssl.SSLCertVerificationError)
        if isinstance(untrusted, ssl.SSLCertVerificationError):
            return Untrusted(explain_untrusted(self.address, untrusted, ca_file=self._ca_file))
        if _asks_for_certificate(error):
            return Untrusted(f"{self.address} asks for a client's certificate: set client.cert_file")
        match error:
            case httpx.ProxyError():
                return Unreachable(f"the proxy on the way to {self.address} refuses: {error}; see client.proxy")
            case httpx.ConnectTimeout():
                return Unreachable(f"{self.address} does not answer{through} within {self._connect_timeout_s:g} s")
            case httpx.ConnectError():
                return Unreachable(f"nothing answers at {self.address}{through} ({error})")
            case httpx.TimeoutException():
                return Unreachable(f"{self.address} sent nothing for {timeout_s:g} s")
        # A server's refusal of a client without a certificate is seldom seen: its connection is closed by then.
        may_ask = self.address.startswith("https://") and not self._cert_file and not self._has_answered
        hint = "; if it asks for a client's certificate, set client.cert_file" if may_ask else ""
        return Unreachable(f"the connection to {self.address} broke off ({type(error).__name__}){hint}")

    def _is_proxied(self) -> bool:
        if self._is_loopback or self._proxy == "none":
            return False
        if self._proxy:
            return True
        from urllib.request import getproxies, proxy_bypass

        parts = urlsplit(self.address)
        return parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")

    def _open(self) -> httpx.AsyncClient:
        import httpx

        if self._is_closed:
            raise Closed("this client was closed")
        if self._http is None:
            context = self._make_ssl_context()
            try:
                self._http = httpx.AsyncClient(
                    base_url=self.address,
                    headers={"authorization": f"Bearer {self._token}", "user-agent": "unmask"},
                    verify=context,
                    limits=httpx.Limits(max_connections=64, keepalive_expiry=_KEEP_ALIVE_S),
                    follow_redirects=False,
                    # Proxies are for the outside: code for this machine must not leave it.
                    proxy=None if self._is_loopback or self._proxy == "none" else self._proxy or None,
                    trust_env=not self._is_loopback and not self._proxy,
                )
            except httpx.InvalidURL:
                raise ConfigError("client.url is not a valid address: it must look like https://host:port") from None
            except (
                ValueError,
                ImportError,
            ):  # what httpx raises for a proxy scheme it does not know or lacks a part for
                where = "client.proxy" if self._proxy else "the proxy of the environment (HTTPS_PROXY, ALL_PROXY)"
                raise ConfigError(f"{where} cannot be used: it must look like http://host:port") from None
        return self._http

    def _make_ssl_context(self) -> ssl.SSLContext:
        if self.address.startswith("http://"):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used, and loads no certificates
        return make_ssl_context(ca_file=self._ca_file, cert_file=self._cert_file, key_file=self._key_file)


def _asks_for_certificate(error: httpx.HTTPError) -> bool:
    # With TLS 1.3 the server says so only when the first answer is read.
    refusal = find_cause(error, ssl.SSLError)
    return refusal is not None and "CERTIFICATE_REQUIRED" in str(refusal).upper().replace(" ", "_")


def was_never_sent(error: Unreachable) -> bool:
    """Whether the request did not even reach a server, so that sending it again does nothing twice."""
    import httpx

    return isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)


def is_loopback(host: str) -> bool:
    """Whether ``host`` names this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False
