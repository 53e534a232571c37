"""The engine at the other end of an HTTP connection. Needs neither torch nor a web framework.

httpx is imported with the first request, because importing it takes longer than a language server may take to start.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import logging
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from diffusion_core.errors import Closed, ConfigError, ProtocolMismatch, Unreachable
from diffusion_core.net.answers import explain_connect_error, raise_for_answer, read_messages
from diffusion_core.net.protocol import CONTENT_TYPE, M, Message, WarmDone, encode
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
        connect_timeout_s: float = 5.0,
        request_timeout_s: float = 300.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not _has_valid_port(parts):
            raise ConfigError("client.url must look like https://host:port")
        if parts.username or parts.password:
            raise ConfigError("client.url holds a user or a password: give a token instead")
        self._address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._token = token
        self._ca_file = ca_file
        self._connect_timeout_s = connect_timeout_s
        self._request_timeout_s = request_timeout_s
        self._is_loopback = is_loopback(parts.hostname)
        self._http: httpx.AsyncClient | None = None
        self._num_active = 0
        self._is_retired = False
        self._is_closed = False
        if parts.scheme == "http" and not self._is_loopback:
            logger.warning("%s is not encrypted: the token and the code can be read on the way", self._address)

    def __repr__(self) -> str:
        return f"HttpEngineClient({self._address!r}, token=***)"

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        return await self._call_once("complete", request, Result)

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream preview frames, then the result. Leaving early (``aclose``) cancels the work on the server."""
        result: Result | None = None
        async with self._exchange("POST", "edit", request, PreviewFrame, Result) as messages:
            async for message in messages:
                if result is not None:
                    raise ProtocolMismatch(f"{self._address} sent more after the result")
                if isinstance(message, Result):
                    result = message  # kept until the stream has ended, so that its connection can be used again
                elif isinstance(message, PreviewFrame):
                    yield message
        if result is None:
            raise Unreachable(f"{self._address} ended the edit without a result")
        yield result

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        await self._call_once("warm", request, WarmDone)

    async def health(self) -> Health:
        """The state of the engine."""
        return await self._call_once("health?decoding", None, Health)

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
                    raise ProtocolMismatch(f"{self._address} sent more than one answer")
                answer = each
        if answer is None:
            raise ProtocolMismatch(f"{self._address} sent an empty answer")
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
        content = None
        if message is not None:
            content = encode(message)
            headers["content-type"] = CONTENT_TYPE
        timeout_s = self._request_timeout_s if message else min(self._request_timeout_s, _HEALTH_TIMEOUT_S)
        timeout = httpx.Timeout(timeout_s, connect=self._connect_timeout_s)
        request = self._open().stream(method, f"/v1/{path}", content=content, headers=headers, timeout=timeout)
        self._num_active += 1
        try:
            async with request as response:
                raise_for_answer(response, self._address)
                async with aclosing(read_messages(response, self._address, *expected)) as messages:
                    yield messages
        except httpx.ConnectError as error:
            raise Unreachable(explain_connect_error(self._address, error)) from error
        except httpx.ConnectTimeout as error:
            raise Unreachable(f"{self._address} does not answer within {self._connect_timeout_s:g} s") from error
        except httpx.TimeoutException:
            raise Unreachable(f"{self._address} sent nothing for {timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Unreachable(f"the connection to {self._address} broke off ({type(error).__name__})") from None
        finally:
            self._num_active -= 1
            if self._is_retired and not self._num_active:
                await self.aclose()

    def _open(self) -> httpx.AsyncClient:
        import httpx

        if self._is_closed:
            raise Closed("this client was closed")
        if self._http is None:
            context = self._make_ssl_context()
            try:
                self._http = httpx.AsyncClient(
                    base_url=self._address,
                    headers={"authorization": f"Bearer {self._token}", "user-agent": "unmask"},
                    verify=context,
                    limits=httpx.Limits(max_connections=64, keepalive_expiry=_KEEP_ALIVE_S),
                    follow_redirects=False,
                    # Proxies of the environment are for the outside: code for this machine must not leave it.
                    trust_env=not self._is_loopback,
                )
            except httpx.InvalidURL:
                raise ConfigError("client.url is not a valid address: it must look like https://host:port") from None
            except (
                ValueError,
                ImportError,
            ):  # what httpx raises for a proxy scheme it does not know or lacks a part for
                raise ConfigError("the proxy of the environment (HTTPS_PROXY, ALL_PROXY) cannot be used") from None
        return self._http

    def _make_ssl_context(self) -> ssl.SSLContext:
        if self._address.startswith("http://"):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used, and loads no certificates
        if not self._ca_file:
            return ssl.create_default_context()
        path = Path(self._ca_file).expanduser()
        try:
            return ssl.create_default_context(cafile=str(path))
        except OSError as error:  # a file without certificates is an ssl.SSLError, which is an OSError
            raise ConfigError(f"client.ca_file: cannot use {path}: {error.strerror or error}") from None


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
