# SPDX-License-Identifier: Apache-2.0
"""How many calls each principal makes."""

import time
from collections.abc import Callable

from agent_runtime.security.caller import Caller
from kubeagents_api.errors import RateLimitedError


class Rates:
    """A token bucket for each principal. A pod counts its own calls only, so each has its share of the limit."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = 1.0
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """Principal -> tokens, and when that was."""

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
        tokens, at = self._buckets.get(caller.name, (most, now))
        tokens = min(most, tokens + (now - at) * per_second)
        if tokens < 1.0:
            self._buckets[caller.name] = (tokens, now)
            raise RateLimitedError(
                f"{caller.name} may make {limit.requests} calls in {limit.per_seconds:g} s",
                delay=(1.0 - tokens) / per_second,
            )
        self._buckets[caller.name] = (tokens - 1.0, now)
