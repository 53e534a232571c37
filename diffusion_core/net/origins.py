"""Which browsers may ask: those that show a page of this very server, under a name that is known to be its own.

A page of another site can make a browser send requests here; one that had its own name pointed at this address (DNS
rebinding) even looks like a page of ours, except for the name. Editors and scripts send neither an Origin nor
Sec-Fetch headers and are never asked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Scope

from diffusion_core.errors import Forbidden

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class OriginCheck:
    """Lets requests of this server's own pages pass; ``hosts`` are names it goes by besides localhost and addresses.

    An IP address as host is always good: a browser got there without a name that somebody could have pointed here.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = {_plain_name(host) for host in hosts} | {"localhost"}

    def check(self, scope: Scope) -> None:
        """Look at a request's headers.

        Raises:
            Forbidden: a browser sent it, and not for a page of this server.
        """
        headers = Headers(scope=scope)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "")
        if origin is None and not site:
            return
        host = headers.get("host", "")
        if not self._is_own(host):
            raise Forbidden("this server is not to be opened under that name: see server.allowed_hosts")
        if origin is not None:
            if _normalise(origin) != _normalise(f"{scope['scheme']}://{host}"):
                raise Forbidden(
                    "requests from web pages of other sites are not allowed (behind a proxy that ends TLS: see "
                    "server.trusted_proxies)"
                )
        elif site not in {"same-origin", "none"} and headers.get("sec-fetch-mode") != "navigate":
            raise Forbidden("requests from web pages of other sites are not allowed")

    def _is_own(self, host: str) -> bool:
        name = _plain_name(host.rpartition(":")[0] if _has_port(host) else host)
        return name in self._hosts or name.endswith(".localhost") or _is_address(name)


def _has_port(host: str) -> bool:
    _, colon, port = host.rpartition(":")
    return bool(colon) and port.isdecimal()


def _plain_name(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _normalise(origin: str) -> str:
    """Scheme, host and port, without the port that the scheme implies."""
    origin = origin.lower()
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition(":")[0], " "))
