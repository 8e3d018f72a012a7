"""A customer's server on this machine, which a test lets answer as well or as badly as it likes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from billing.webhooks.sender import Ways

CERTIFICATE = Path(__file__).parent / "certificate.pem"
URL = "https://hooks.example.com/in?from=soulbox"
PUBLIC = "93.184.215.14"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Talk = Callable[[socket.socket], None]


def answer_with(answer: bytes) -> Talk:
    """Return the talk that says this and ends."""
    return lambda connection: connection.sendall(answer)


def take(connection: socket.socket) -> None:
    """Say that it is taken."""
    connection.sendall(OK)


@dataclass
class Endpoint:
    """What came in, and where connections were asked to go."""

    port: int
    received: list[bytes] = field(default_factory=list)
    reached: list[tuple[str, int]] = field(default_factory=list)

    @property
    def head(self) -> str:
        """The last request's line and headers."""
        return self.received[-1].partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        """The last request's body."""
        return self.received[-1].partition(b"\r\n\r\n")[2]

    def headers(self) -> dict[str, str]:
        """Return the last request's headers, their names in small letters."""
        pairs = (line.partition(": ") for line in self.head.splitlines()[1:])
        return {name.lower(): value for name, _, value in pairs}

    def ways(self, *, resolves_to: Callable[[], Sequence[str]] = lambda: [PUBLIC]) -> Ways:
        """Return ways by which the name is at a public address, and connections come here."""

        def connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
            self.reached.append(address)
            return socket.create_connection(("127.0.0.1", self.port), timeout_s)

        def tls() -> ssl.SSLContext:
            return ssl.create_default_context(cafile=CERTIFICATE)

        return Ways(lambda _host, _port: resolves_to(), connect, tls)


@contextmanager
def endpoint(talk: Talk = take, *, is_tls: bool = True) -> Iterator[Endpoint]:
    """Run a server that takes a request, then talks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = Endpoint(listening.getsockname()[1])

        def serve(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                own = context.wrap_socket(connection, server_side=True) if is_tls else connection
                with own:
                    here.received.append(_request(own))
                    talk(own)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield here
        # Wakes up who accepts.
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.splitlines()
        if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
