# SPDX-License-Identifier: Apache-2.0
"""How many calls each principal makes, and how often something is noted."""

import time
from collections.abc import Callable

from agent_runtime.security.caller import Caller
from kubeagents_api.errors import RateLimitedError


class Bucket:
    """Tokens that come back with time. Begins full."""

    def __init__(self, *, tokens: float, now: float) -> None:
        self._tokens, self._at = tokens, now

    def take(self, *, most: float, per_second: float, now: float) -> float:
        """Take one; 0 if there was one, else the seconds until there is."""
        self._tokens = min(most, self._tokens + (now - self._at) * per_second)
        self._at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / per_second
        self._tokens -= 1.0
        return 0.0


class Rates:
    """A token bucket for each principal. A pod counts its own calls only, so each has its share of the limit."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = 1.0
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        """By principal."""

    def share(self, pods: int) -> None:
        """So many pods share the calls."""
        self._share = 1.0 / max(1, pods)

    def take(self, caller: Caller) -> None:
        """Count one call. Raises RateLimitedError, with the delay until there is room again."""
        limit = caller.rate_limit
        if limit is None:
            return
        most = max(1.0, limit.requests * self._share)
        per_second = limit.requests * self._share / limit.per_seconds
        now = self._clock()
        bucket = self._buckets.setdefault(caller.name, Bucket(tokens=most, now=now))
        if (pause := bucket.take(most=most, per_second=per_second, now=now)) > 0:
            raise RateLimitedError(
                f"{caller.name} may make {limit.requests} calls in {limit.per_seconds:g} s", delay=pause
            )
