"""How many calls are taken of one key or member, and of one account, in a minute."""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from billing.api.callers import Caller
from billing.caching import CacheUnavailableError, with_cache
from billing.models import OperatorKey

if TYPE_CHECKING:
    # Views read in their settings how they are throttled, so they cannot be imported first.
    from rest_framework.views import APIView

WINDOW_S = 60
ACCOUNT_FACTOR = 2
"""All keys and members of an account together may call so many times as often as one."""
_PREFIX = "calls:1"

# Counts the call in this window for everyone named, and returns each one's counts of this window
# and of the one before it.
_COUNT = """
local counts = {}
for i = 1, #KEYS, 2 do
    local now = redis.call('INCR', KEYS[i])
    if now == 1 then redis.call('EXPIRE', KEYS[i], ARGV[1]) end
    counts[#counts + 1] = now
    counts[#counts + 1] = tonumber(redis.call('GET', KEYS[i + 1]) or '0')
end
return counts
"""


@dataclass(frozen=True, slots=True)
class Share:
    """What is left of one limit after this call. `resets_in_s` is when the window ends."""

    name: str
    limit: int
    used: float
    resets_in_s: int

    @property
    def left(self) -> int:
        """How many more calls are taken."""
        return max(0, int(self.limit - self.used))


class FairShare(BaseThrottle):
    """Takes so many calls in any minute, as the last window's share of it and this one's count.

    Whoever cannot be counted, since the cache is silent, is let through.
    """

    def __init__(self) -> None:
        self._shares: list[Share] = []

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Count the call, and return whether it is taken."""
        del view
        self._shares = count_call(_limits_of(request), now_s=time())
        # For the answer's headers.
        request._request.rate_limits = self._shares  # type: ignore[attr-defined]  # noqa: SLF001 - see above
        return all(share.used <= share.limit for share in self._shares)

    def wait(self) -> float | None:
        """Return after how many seconds to try again."""
        return max((share.resets_in_s for share in self._shares if not share.left), default=None)


def count_call(limits: dict[str, tuple[str, int]], *, now_s: float) -> list[Share]:
    """Count one call of everyone in `limits`, by name whom and how many; return what is left."""
    window, elapsed_s = divmod(now_s, WINDOW_S)
    keys = [
        f"{_PREFIX}:{who}:{int(at)}"
        for who, _limit in limits.values()
        for at in (window, window - 1)
    ]
    try:
        counts = with_cache(lambda client: client.eval(_COUNT, len(keys), *keys, 2 * WINDOW_S))
    except CacheUnavailableError:
        return []
    left_of_last = 1 - elapsed_s / WINDOW_S
    return [
        Share(name, limit, now + before * left_of_last, max(1, round(WINDOW_S - elapsed_s)))
        for (name, (_who, limit)), now, before in zip(
            limits.items(), counts[::2], counts[1::2], strict=True
        )
    ]


def headers_of(shares: list[Share]) -> dict[str, str]:
    """Return the limits as draft-ietf-httpapi-ratelimit-headers writes them."""
    if not shares:
        return {}
    policy = ", ".join(f'"{share.name}";q={share.limit};w={WINDOW_S}' for share in shares)
    state = ", ".join(f'"{share.name}";r={share.left};t={share.resets_in_s}' for share in shares)
    return {"RateLimit-Policy": policy, "RateLimit": state}


def _limits_of(request: Request) -> dict[str, tuple[str, int]]:
    caller, limit = request.auth, settings.API_CALLS_A_MINUTE
    if isinstance(caller, OperatorKey):
        return {"operator": (f"operator:{caller.pk}", limit)}
    if not isinstance(caller, Caller):
        return {"address": (f"address:{request.META.get('REMOTE_ADDR', '')}", limit)}
    account = (f"account:{caller.account_id}", ACCOUNT_FACTOR * limit)
    if caller.key:
        return {"key": (f"key:{caller.key.pk}", limit), "account": account}
    user = caller.user.pk if caller.user else 0
    return {"member": (f"member:{user}", limit), "account": account}
