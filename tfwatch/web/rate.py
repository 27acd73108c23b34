"""How much one caller may ask: a bucket of tokens for each, which fills up with time."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

BURST_SECONDS: Final = 4.0
"""A caller that was silent may ask at once for as much as in so many seconds."""

_MOST_CALLERS: Final = 4096
_PREFIX_OF_ONE: Final = 64


def caller(address: str) -> str:
    """Who asks, by address: a /64 of IPv6 is one caller, and an IPv4 address is the same however it is written."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip), _PREFIX_OF_ONE), strict=False))


class Rate:
    """Tells whether a caller may ask once more. Used by one thread; remembers the last few thousand callers."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second * BURST_SECONDS)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> int:
        """0: go on. Else the whole seconds after which `who` may ask again."""
        now = self._clock()
        left, since = self._buckets.pop(who, (self._most, now))
        left = min(self._most, left + (now - since) * self._per_second)
        wait = 0 if left >= 1 else max(1, math.ceil((1 - left) / self._per_second))
        self._buckets[who] = (left if wait else left - 1, now)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        return wait
