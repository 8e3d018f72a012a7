from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from billing.webhooks import sender
from billing.webhooks.addresses import UnsafeAddressError
from billing.webhooks.sender import (
    MOST_BODY_BYTES,
    SYSTEM,
    NotSentError,
    Ways,
    check_url,
    post,
)
from tests.billing.webhooks.endpoint import PUBLIC, URL, Endpoint, answer_with, endpoint

HEADERS = {"Content-Type": "application/json", "webhook-id": "7"}
SHORT_S = 0.4


def send(to: Endpoint, url: str = URL, *, ways: Ways | None = None) -> sender.Answer:
    return post(
        url, b'{"a":1}', HEADERS, allow_private=False, ways=ways or to.ways(), timeout_s=SHORT_S * 5
    )


def test_what_is_sent_arrives_at_the_address_under_the_names_of_the_url() -> None:
    with endpoint() as here:
        answer = send(here)
    assert (answer.status, answer.body, answer.is_success) == (200, b"ok", True)
    assert here.reached == [(PUBLIC, 443)]
    assert here.head.splitlines()[0] == "POST /in?from=soulbox HTTP/1.1"
    headers = here.headers()
    assert headers["host"] == "hooks.example.com"
    assert (headers["content-type"], headers["webhook-id"]) == ("application/json", "7")
    assert here.body == b'{"a":1}'


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://0/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://localhost/",
        "https://LOCALHOST:8443/",
    ],
)
def test_nothing_connects_to_an_internal_address_however_it_is_written(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_arguments: object, **_options: object) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", connect)
    for attempt in (
        lambda: check_url(url, allow_private=False),
        lambda: post(url, b"{}", HEADERS, allow_private=False),
    ):
        with pytest.raises(UnsafeAddressError, match="not public"):
            attempt()
    # Each of them names this machine or another that could be had: the check alone is in the way.
    check_url(url, allow_private=True)


def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_judged() -> None:
    answers: Iterator[Sequence[str]] = iter([[PUBLIC], ["127.0.0.1"], ["10.0.0.1"]])
    with endpoint() as here:
        ways = here.ways(resolves_to=lambda: next(answers))
        assert send(here, ways=ways).is_success
        assert here.reached == [(PUBLIC, 443)]
        # Public when the endpoint was made is not public now.
        with pytest.raises(UnsafeAddressError, match="not public"):
            send(here, ways=ways)
    assert here.reached == [(PUBLIC, 443)]
    assert next(answers) == ["10.0.0.1"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_is_no_success(status: int) -> None:
    location = f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:6379/\r\n\r\n".encode()
    with endpoint(answer_with(location)) as here:
        answer = send(here)
    assert (answer.status, answer.is_success) == (status, False)
    assert len(here.reached) == len(here.received) == 1


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with endpoint() as here:
        assert send(here).is_success


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b".")
        time.sleep(SHORT_S / 8)  # the slowness is what is tried


def drip_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"a: b\r\n")
        time.sleep(SHORT_S / 8)  # the same


def say_nothing(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.parametrize("talk", [drip, drip_headers, say_nothing])
def test_an_answer_that_takes_its_time_is_not_waited_for(talk: object) -> None:
    with endpoint(talk) as here, pytest.raises(NotSentError, match=r"within 0\.4 s"):  # type: ignore[arg-type]  # one of the above
        post(URL, b"{}", HEADERS, allow_private=False, ways=here.ways(), timeout_s=SHORT_S)


def test_who_never_greets_over_tls_is_not_waited_for() -> None:
    with endpoint(is_tls=False) as here, pytest.raises(NotSentError, match="within"):
        post(URL, b"{}", HEADERS, allow_private=False, ways=here.ways(), timeout_s=SHORT_S)


def test_a_name_that_takes_its_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "RESOLVING_S", SHORT_S)
    is_over = threading.Event()

    def resolve() -> Sequence[str]:
        is_over.wait()
        return [PUBLIC]

    with endpoint() as here, pytest.raises(NotSentError, match="not looked up within"):
        send(here, ways=here.ways(resolves_to=resolve))
    is_over.set()
    assert here.reached == []


def test_a_name_that_nobody_has_is_told_so() -> None:
    def resolve() -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with endpoint() as here:
        ways = here.ways(resolves_to=resolve)
        with pytest.raises(NotSentError, match="not found"):
            send(here, ways=ways)
        with pytest.raises(UnsafeAddressError, match="Is the name right"):
            check_url(URL, allow_private=False, ways=ways)


def test_a_huge_body_is_read_in_part() -> None:
    body = b"x" * 10_000_000
    taken = []

    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 10000000\r\n\r\n")
        for at in range(0, len(body), 65536):
            connection.sendall(body[at : at + 65536])
            taken.append(at)

    with endpoint(pour) as here:
        answer = send(here)
    assert (answer.status, len(answer.body)) == (500, MOST_BODY_BYTES)
    assert len(taken) < len(body) // 65536


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"a: " + b"b" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"\x00\x01\x02 this is not HTTP",
        b"",
    ],
    ids=["long header", "many headers", "endless interim answers", "no HTTP", "nothing"],
)
def test_an_answer_that_is_none_is_no_answer(answer: bytes) -> None:
    with endpoint(answer_with(answer)) as here, pytest.raises(NotSentError):
        send(here)


def test_a_certificate_of_another_name_is_refused() -> None:
    with endpoint() as here:
        with pytest.raises(NotSentError, match=r"[Hh]ostname mismatch"):
            send(here, "https://other.example.com/")
        with pytest.raises(NotSentError, match="self-signed"):
            send(here, ways=Ways(here.ways().resolve, here.ways().connect, SYSTEM.tls))
    assert here.received == []


def test_the_next_address_is_tried_where_one_is_out_of_reach() -> None:
    with endpoint() as here:
        ways = here.ways(resolves_to=lambda: ["8.8.8.8", PUBLIC])

        def connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
            if address[0] == "8.8.8.8":
                raise ConnectionRefusedError
            return ways.connect(address, timeout_s)

        assert send(here, ways=Ways(ways.resolve, connect, ways.tls)).is_success
    assert here.reached == [(PUBLIC, 443)]
