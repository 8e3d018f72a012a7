from __future__ import annotations

import pytest

from billing.webhooks.addresses import (
    LONGEST_URL,
    Destination,
    UnsafeAddressError,
    is_public,
    read_url,
    refuse_private,
)


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "8.8.8.8",
        "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",  # 8.8.8.8
        "2002:808:808::1",  # 8.8.8.8
    ],
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",  # noqa: S104 - refused is what it is
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "233.252.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",  # 10.0.0.1
        "64:ff9b::7f00:1",  # 127.0.0.1
        "64:ff9b::a9fe:a9fe",  # 169.254.169.254
        "64:ff9b:1::808:808",
        "2002:a00:1::1",  # 10.0.0.1
        "2002:7f00:1::1",  # 127.0.0.1
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1%1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "no address",
        "",
    ],
)
def test_what_is_no_machine_of_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


def test_one_private_address_is_enough_to_refuse_a_name() -> None:
    refuse_private(["8.8.8.8", "1.1.1.1"], allow_private=False)
    with pytest.raises(UnsafeAddressError, match="not public"):
        refuse_private(["8.8.8.8", "10.0.0.1"], allow_private=False)
    with pytest.raises(UnsafeAddressError, match="no address"):
        refuse_private([], allow_private=True)


@pytest.mark.parametrize(
    ("url", "destination", "host_header"),
    [
        (
            "https://hooks.example.com",
            Destination("https", "hooks.example.com", 443, "/"),
            "hooks.example.com",
        ),
        (
            "https://Hooks.Example.com:8443/a/b?c=d#e",
            Destination("https", "hooks.example.com", 8443, "/a/b?c=d"),
            "hooks.example.com:8443",
        ),
        ("https://8.8.8.8:443/", Destination("https", "8.8.8.8", 443, "/"), "8.8.8.8"),
        ("https://[2606::1]:1024/", Destination("https", "2606::1", 1024, "/"), "[2606::1]:1024"),
    ],
)
def test_a_url_says_where_it_points(url: str, destination: Destination, host_header: str) -> None:
    assert read_url(url, allow_private=False) == destination
    assert destination.host_header == host_header


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://hooks.example.com/", "https://"),
        ("ftp://hooks.example.com/", "https://"),
        ("gopher://127.0.0.1:6379/_SET", "https://"),
        ("file:///etc/passwd", "https://"),
        ("hooks.example.com", "https://"),
        ("", "ASCII"),
        ("https://", "host name"),
        ("https:///path", "host name"),
        ("https://user@hooks.example.com/", "user name"),
        ("https://user:password@hooks.example.com/", "user name"),
        ("https://hooks.example.com@127.0.0.1/", "user name"),
        ("https://hooks.example.com\\@127.0.0.1/", "backslashes"),
        ("https://hooks.example.com/a b", "ASCII"),
        ("https://hooks.example.com/\r\nHost: localhost", "ASCII"),
        ("https://hooks.example.com/\x00", "ASCII"),
        ("https://bücher.example.com/", "ASCII"),
        ("https://１２７.0.0.1/", "ASCII"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://[::1/", "no URL"),
        ("https://hooks.example.com:22/", "port 443"),
        ("https://hooks.example.com:80/", "port 443"),
        ("https://hooks.example.com:0/", "port 443"),
        ("https://hooks.example.com:65536/", "no URL"),
        ("https://hooks.example.com:https/", "no URL"),
        ("https://hooks.example.com/" + "a" * LONGEST_URL, "characters"),
    ],
)
def test_a_url_that_points_nowhere_good_is_refused(url: str, reason: str) -> None:
    with pytest.raises(UnsafeAddressError, match=reason):
        read_url(url, allow_private=False)


def test_private_endpoints_may_do_without_tls() -> None:
    destination = read_url("http://localhost:9000/hook", allow_private=True)
    assert destination == Destination("http", "localhost", 9000, "/hook")
    refuse_private(["127.0.0.1"], allow_private=True)
