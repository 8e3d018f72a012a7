"""Where a customer's webhook may go: to public addresses of the internet, and nowhere else.

A name is judged by the addresses that it resolves to, whichever way it is written, and what was
judged is what is connected to. So `0x7f.1`, `2130706433` and a name whose answer changes between
two look-ups are no way in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

LONGEST_URL: Final = 2048
HTTPS_PORT: Final = 443
HTTP_PORT: Final = 80
LOWEST_OTHER_PORT: Final = 1024
"""Below it are mail, remote log-ins and the like, whose servers a request might confuse."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
# Of special use, though Python 3.11 calls some of them global.
_SPECIAL: Final = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv6Network("2001::/23"),
    IPv6Network("3fff::/20"),
)
_VISIBLE_ASCII: Final = re.compile(r"[!-~]+", re.ASCII)


class UnsafeAddressError(ValueError):
    """Nothing is sent there. The message says why, in words for the one who gave the URL."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes: the host by name or number, as the URL has it, and the path there."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def host_header(self) -> str:
        """What the request names as its host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = HTTPS_PORT if self.scheme == "https" else HTTP_PORT
        return host if self.port == usual else f"{host}:{self.port}"


def read_url(url: str, *, allow_private: bool) -> Destination:
    """Return where the URL points. Raises UnsafeAddressError, without looking anything up.

    `allow_private` lets http:// pass, for endpoints on the developer's own machine.
    """
    if len(url) > LONGEST_URL:
        raise UnsafeAddressError(f"Use a URL of at most {LONGEST_URL} characters.")
    if not _VISIBLE_ASCII.fullmatch(url) or "\\" in url:
        raise UnsafeAddressError(
            "Use ASCII without spaces and backslashes: international host names as xn--…, other "
            "characters as %XX."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UnsafeAddressError("This is no URL.") from None
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise UnsafeAddressError("Use a URL that begins with https://.")
    if "@" in parts.netloc:
        raise UnsafeAddressError("Use a URL without user name and password; verify the signature.")
    if not parts.hostname:
        raise UnsafeAddressError("Use a URL with a host name.")
    if "%" in parts.hostname:
        raise UnsafeAddressError("Use a host without a zone.")
    usual = HTTPS_PORT if parts.scheme == "https" else HTTP_PORT
    port = usual if port is None else port
    if port != usual and port < LOWEST_OTHER_PORT:
        raise UnsafeAddressError(f"Use port {usual}, or one from {LOWEST_OTHER_PORT} on.")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    return Destination(parts.scheme, parts.hostname, port, target)


def refuse_private(addresses: Sequence[str], *, allow_private: bool) -> None:
    """Return where every address is public. Raises UnsafeAddressError.

    One that is not is enough to refuse the name: nobody's public service has such a one.
    """
    if not addresses:
        raise UnsafeAddressError("The host has no address.")
    if not allow_private and not all(is_public(address) for address in addresses):
        raise UnsafeAddressError("The host has an address that is not public.")


def is_public(text: str) -> bool:
    """Return whether an IP address is one of the internet's, for a single machine.

    An IPv6 address with an IPv4 address in it is judged by that one.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id:
            return False
        if inner := _inner(address):
            return is_public(str(inner))
        if address not in _GLOBAL_UNICAST:
            return False
    is_special = any(
        address in network for network in _SPECIAL if network.version == address.version
    )
    return address.is_global and not address.is_multicast and not is_special


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to this IPv6 address are handed on to."""
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour if address in _SIX_TO_FOUR else None
