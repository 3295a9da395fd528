# SPDX-License-Identifier: Apache-2.0
"""Token buckets: so much at once, then so much per time. They keep a quarrel from becoming a storm of writes: with a
second operator, an autoscaler or a person who wants another thing, each answering the other's change at once."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

_REMEMBERED = 4096


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class Buckets:
    """One bucket per slot; those that were not used for long are full again and forgotten."""

    def __init__(self, *, burst: int, refill_seconds: float) -> None:
        self._burst = burst
        self._refill = refill_seconds
        self._clock = asyncio.get_running_loop().time
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, slot: Hashable) -> float:
        """Take a token. Returns 0, or without taking any the seconds until there is one."""
        now = self._clock()
        bucket = self._buckets.setdefault(slot, _Bucket(self._burst, now))
        self._buckets.move_to_end(slot)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) / self._refill)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) * self._refill
        bucket.tokens -= 1
        return 0.0
