from __future__ import annotations

import base64
from datetime import UTC, datetime

from billing.webhooks.signing import secret_text, signed_headers


def test_what_is_signed_is_the_standards_own_example() -> None:
    # From the specification's test vector, which its libraries carry.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - public
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert secret_text(key) == secret
    headers = signed_headers(
        b'{"test": 2432232314}',
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        keys=[key],
        now=datetime.fromtimestamp(1614265330, UTC),
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_while_a_secret_is_rotated_both_sign() -> None:
    now = datetime(2026, 5, 10, tzinfo=UTC)
    one, two, both = (
        signed_headers(b"{}", message_id="1", keys=keys, now=now)["webhook-signature"]
        for keys in ([b"one"], [b"two"], [b"one", b"two"])
    )
    assert both == f"{one} {two}"
