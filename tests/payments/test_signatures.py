from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.signatures import (
    LONGEST_HEADER,
    SignatureRefusedError,
    check_signature,
    sign,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
AT = int(NOW.timestamp())
BODY = b'{"id": "evt_1"}'
SECRET, OLD_SECRET, TEST_SECRET = "whsec_new", "whsec_old", "whsec_test"
CYRILLIC = "пароль"
GOOD = "0" * 64


def digest(at: str = str(AT), *, secret: str = SECRET, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


def refusal(header: str, *, body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,)) -> str:
    with pytest.raises(SignatureRefusedError) as caught:
        check_signature(header, body, secrets=secrets, now=NOW)
    return str(caught.value)


def accepts(header: str, *, body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,)) -> bool:
    check_signature(header, body, secrets=secrets, now=NOW)
    return True


def test_the_signature_is_stripes() -> None:
    # Of `1600000000.{}`, by openssl dgst -sha256 -hmac whsec_test.
    header = sign(b"{}", secret=TEST_SECRET, now=datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC))
    assert header == (
        "t=1600000000,v1=0a6188eb14ea9e46795a5a3941d81e88ec1805dc5e474147ee2386660589a795"
    )


@pytest.mark.parametrize("age_s", [-60, -1, 0, 1, 299, 300])
def test_a_fresh_signature_is_accepted(age_s: int) -> None:
    assert accepts(sign(BODY, secret=SECRET, now=NOW - timedelta(seconds=age_s)))


@pytest.mark.parametrize(
    ("age_s", "reason"),
    [
        (301, "It was signed 301 s ago."),
        (86_400, "It was signed 86400 s ago."),
        (-61, "It was signed 61 s ahead of our clock."),
        (-86_400, "It was signed 86400 s ahead of our clock."),
    ],
)
def test_an_old_or_early_signature_is_refused(age_s: int, reason: str) -> None:
    assert refusal(sign(BODY, secret=SECRET, now=NOW - timedelta(seconds=age_s))) == reason


def test_the_fraction_of_a_second_does_not_count() -> None:
    header = sign(BODY, secret=SECRET, now=NOW - timedelta(seconds=300))
    check_signature(header, BODY, secrets=[SECRET], now=NOW + timedelta(milliseconds=999))


def test_both_secrets_count_during_a_rotation_and_one_after() -> None:
    old = sign(BODY, secret=OLD_SECRET, now=NOW)
    assert accepts(old, secrets=(SECRET, OLD_SECRET))
    assert accepts(old, secrets=(OLD_SECRET, SECRET))
    assert refusal(old) == "No signature in it is one of our signing secrets'."


def test_any_of_the_signatures_suffices() -> None:
    assert accepts(f"t={AT},v1={GOOD},v1={digest()}")
    assert accepts(f"t={AT},v1={digest(secret=OLD_SECRET)},v1={digest()},v0=other")
    assert accepts(f"v1={digest()},t={AT}")


def test_a_secret_may_be_of_any_letters() -> None:
    assert accepts(sign(BODY, secret=CYRILLIC, now=NOW), secrets=(CYRILLIC,))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "It has no Stripe-Signature."),
        ("junk", "Its Stripe-Signature cannot be read."),
        (f"t={AT},v1={digest()},", "Its Stripe-Signature cannot be read."),
        (f"v1={digest()}", "Its Stripe-Signature does not say once when it was signed."),
        (f"t={AT},t={AT},v1={digest()}", "does not say once"),
        (f"t={AT},t=1,v1={digest()}", "does not say once"),
        (f"t=,v1={digest('')}", "does not say once"),
        (f"t=-{AT},v1={digest(f'-{AT}')}", "does not say once"),
        (f"t=+{AT},v1={digest(f'+{AT}')}", "does not say once"),
        (f"t={AT}.0,v1={digest(f'{AT}.0')}", "does not say once"),
        (f"t= {AT},v1={digest()}", "does not say once"),
        (f"t={AT}\n,v1={digest()}", "does not say once"),
        (f"t=1_0,v1={digest('1_0')}", "does not say once"),
        ("t=١٧٦,v1=" + digest("١٧٦"), "does not say once"),
        (f"t={'9' * 12},v1={digest('9' * 12)}", "does not say once"),
        (f"t={AT}", "Its Stripe-Signature has 0 signatures of the scheme v1."),
        (f"t={AT},v0={digest()}", "Its Stripe-Signature has 0 signatures of the scheme v1."),
        (f"t={AT}" + f",v1={digest()}" * 11, "has 11 signatures of the scheme v1."),
        (f"t={AT},v1=", "Its Stripe-Signature has a signature that is none."),
        (f"t={AT},v1={digest()[:63]}", "a signature that is none"),
        (f"t={AT},v1={digest().upper()}0", "a signature that is none"),
        (f"t={AT},v1=é{digest()[1:]}", "a signature that is none"),
        (f"t={AT},v1={digest()},v1=junk", "a signature that is none"),
        (f"t={AT},v1={digest()}," + "x=" * LONGEST_HEADER, "Its Stripe-Signature is too long."),
        (f"t={AT},v1={GOOD}", "No signature in it is one of our signing secrets'."),
        (f"t={AT + 1},v1={digest()}", "No signature in it is one of our signing secrets'."),
    ],
)
def test_another_header_is_refused(header: str, reason: str) -> None:
    assert reason in refusal(header)


def test_without_a_secret_nothing_is_accepted() -> None:
    assert refusal(sign(BODY, secret="", now=NOW), secrets=()) == (
        "No signature in it is one of our signing secrets'."
    )


def test_a_refusal_names_no_secret() -> None:
    for header in (sign(BODY, secret=OLD_SECRET, now=NOW), f"t={AT},v1={GOOD}", "t=1"):
        assert "whsec" not in refusal(header)


@given(body=st.binary(max_size=200), at=st.integers(0, 10**6))
def test_what_was_signed_is_accepted_and_with_a_changed_byte_refused(body: bytes, at: int) -> None:
    header = sign(body, secret=SECRET, now=NOW)
    assert accepts(header, body=body)
    place = at % (len(body) + 1)
    for changed in (
        body[:place] + b"x" + body[place:],
        body[:place] + bytes([(body[place] + 1) % 256]) + body[place + 1 :]
        if place < len(body)
        else body + b"\x00",
    ):
        assert refusal(header, body=changed) == "No signature in it is one of our signing secrets'."


@given(st.text(max_size=120))
def test_no_header_makes_it_fall_over(header: str) -> None:
    assert refusal(header)
