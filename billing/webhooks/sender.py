"""Posts to an address that a customer chose, so that it can reach nothing of ours.

The name is resolved once, every address is judged, and one of those is connected to; Host and the
certificate's name stay the URL's. No redirect is followed and no proxy of the environment is
asked. All of it together, from the look-up to the answer's last byte, has one time limit.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from billing.webhooks.addresses import (
    Destination,
    UnsafeAddressError,
    read_url,
    refuse_private,
)

TIMEOUT_S: Final = 10.0
"""From the look-up of the name to the end of the answer."""
RESOLVING_S: Final = 4.0
CONNECTING_S: Final = 4.0
"""To one of the addresses, before the next is tried."""
MOST_BODY_BYTES: Final = 16 * 1024
"""Of an answer's body; the rest is not read."""
MOST_BYTES: Final = 64 * 1024
"""Of an answer with its headers, and whatever interim answers come before it."""
MOST_ADDRESSES: Final = 3
"""Of a name, tried in turn."""
SUCCESS: Final = range(200, 300)

Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[tuple[str, int], float], socket.socket]


class NotSentError(Exception):
    """There was no answer. The endpoint may have it all the same. The message says what failed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered: the status, and the body's first bytes."""

    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether it took what was sent. A redirect did not."""
        return self.status in SUCCESS


@dataclass(frozen=True, slots=True)
class Ways:
    """How names are resolved and connections made: the system's, but in tests."""

    resolve: Resolve
    connect: Connect
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context


def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name, each once, as the system's resolver orders them.

    Raises OSError where there are none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
    # The address is numbers, so that nothing is looked up again.
    return socket.create_connection(address, timeout=timeout_s)


SYSTEM: Final = Ways(resolve_host, _connect)


def check_url(url: str, *, allow_private: bool, ways: Ways = SYSTEM) -> None:
    """Return where something could be sent to the URL now. Raises UnsafeAddressError."""
    destination = read_url(url, allow_private=allow_private)
    try:
        _addresses_of(destination, ways, allow_private=allow_private)
    except NotSentError:
        raise UnsafeAddressError("The host has no address. Is the name right?") from None


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allow_private: bool,
    ways: Ways = SYSTEM,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Post the body; return the answer, whatever its status.

    Raises UnsafeAddressError where nothing may be sent to, NotSentError where nothing was answered
    in time.
    """
    deadline = _Deadline(timeout_s)
    destination = read_url(url, allow_private=allow_private)
    addresses = _addresses_of(destination, ways, allow_private=allow_private)
    try:
        connection = _Pinned(destination, _reach(destination, addresses, ways, deadline), deadline)
        try:
            every = {**headers, "Host": destination.host_header, "Connection": "close"}
            connection.request("POST", destination.target, body=body, headers=every)
            return connection.answer()
        finally:
            connection.close()
    except TimeoutError:
        raise NotSentError(f"There was no whole answer within {timeout_s:g} s.") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotSentError(_words(error)) from error


class _Deadline:
    """The moment by which all is to be over."""

    def __init__(self, timeout_s: float) -> None:
        self.at = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds that are left. Raises TimeoutError when there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Reader(io.RawIOBase):
    """Reads an answer within the limits: neither a byte now and then nor no end gets past them."""

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection, self._deadline, self._left = connection, deadline, MOST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise ValueError(f"The answer is longer than {MOST_BYTES} bytes.")
        self._connection.settimeout(self._deadline.left_s())
        read = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= read
        return read


class _Readable:
    """What http.client makes an answer of."""

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    def makefile(self, *_mode: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connection, self._deadline), 4096)


class _Pinned(http.client.HTTPConnection):
    """A connection that is there already. It never looks up or opens another."""

    auto_open = 0

    def __init__(
        self, destination: Destination, connection: socket.socket, deadline: _Deadline
    ) -> None:
        super().__init__(destination.host, destination.port)
        self.sock = connection
        self._deadline = deadline

    def send(self, data: Any) -> None:
        self.sock.settimeout(self._deadline.left_s())
        super().send(data)

    def answer(self) -> Answer:
        """Return the answer to what was asked."""
        readable: Any = _Readable(self.sock, self._deadline)
        answer = http.client.HTTPResponse(readable, method="POST")
        answer.begin()
        return Answer(answer.status, answer.read(MOST_BODY_BYTES))


def _addresses_of(destination: Destination, ways: Ways, *, allow_private: bool) -> Sequence[str]:
    """Return the addresses of the host, all of them judged."""
    addresses = _within(RESOLVING_S, partial(ways.resolve, destination.host, destination.port))
    refuse_private(addresses, allow_private=allow_private)
    return addresses


def _within(seconds: float, resolve: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Return what the resolver says. It has no time limit of its own: a thread waits for it."""
    found: list[Sequence[str]] = []
    failed: list[Exception] = []

    def look() -> None:
        try:
            found.append(resolve())
        # A name that cannot be encoded is a UnicodeError.
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(seconds)
    if found:
        return found[0]
    if failed:
        raise NotSentError(f"The host name was not found: {_words(failed[0])}")
    raise NotSentError(f"The host name was not looked up within {seconds:g} s.")


def _reach(
    destination: Destination, addresses: Sequence[str], ways: Ways, deadline: _Deadline
) -> socket.socket:
    """Return a connection to one of the addresses, over TLS where the scheme is https."""
    failed: OSError | None = None
    for address in addresses[:MOST_ADDRESSES]:
        try:
            left_s = min(deadline.left_s(), CONNECTING_S)
            connection = ways.connect((address, destination.port), left_s)
        except OSError as error:
            failed = error
            continue
        if destination.scheme == "http":
            return connection
        connection.settimeout(deadline.left_s())
        try:
            return ways.tls().wrap_socket(connection, server_hostname=destination.host.rstrip("."))
        except BaseException:
            connection.close()
            raise
    raise failed or OSError("The host has no address.")


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]
