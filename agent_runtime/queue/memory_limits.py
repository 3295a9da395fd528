# SPDX-License-Identifier: Apache-2.0
"""How many tasks may start now, in memory: rates (GCRA) and numbers of running tasks, of the queue and of tenants."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from kubeagents_api.limits import QueueLimits, RateLimit

_ROUNDING: Final = 1e-6
"""Part of an interval that is forgiven, as times since 1970 have no more digits."""


@dataclass(slots=True)
class Meter:
    """What a rate has let through. Times in ms."""

    rate: RateLimit
    full_at: float = 0.0
    """The theoretical arrival time: when all that was let through would have arrived, evenly spread."""

    @property
    def interval(self) -> float:
        """Time from one start to the next."""
        return self.rate.per_seconds * 1000 / self.rate.tasks

    @property
    def burst(self) -> int:
        """How many may start at once after a quiet time."""
        return self.rate.burst or self.rate.tasks

    def room(self, now: int) -> int:
        """How many may start now."""
        ahead = (now + self.burst * self.interval - max(self.full_at, now)) / self.interval
        return max(0, min(self.burst, math.floor(ahead + _ROUNDING)))

    def start(self, count: int, now: int) -> None:
        """Count what starts."""
        self.full_at = max(self.full_at, now) + count * self.interval

    def next_at(self) -> int:
        """When there is room for one more, if there is none."""
        return math.ceil(self.full_at - (self.burst - 1) * self.interval - _ROUNDING)


@dataclass(slots=True)
class Limiter:
    """The limits of a queue, and what counts against them."""

    limits: QueueLimits
    running: int = 0
    _running_of: Counter[str] = field(default_factory=Counter)
    _meter: Meter | None = None
    _meter_of: dict[str, Meter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limits.rate is not None:
            self._meter = Meter(self.limits.rate)

    def room(self, now: int) -> int | None:
        """How many may start now in all; None: any number."""
        return _least(
            None if self._meter is None else self._meter.room(now),
            None if self.limits.concurrency is None else self.limits.concurrency - self.running,
        )

    def room_of(self, tenant: str, now: int) -> int | None:
        """How many of a tenant's ("": none) may start now; None: any number."""
        if not tenant:
            return None
        limits = self.limits.per_tenant
        return _least(
            None if limits.rate is None else self._tenant_meter(tenant, limits.rate).room(now),
            None if limits.concurrency is None else limits.concurrency - self._running_of[tenant],
        )

    def next_at(self, tenants: set[str], now: int) -> int | None:
        """When the rates let one more through, if they do not now: the queue's, or that of one of the tenants."""
        if self._meter is not None and self._meter.room(now) == 0:
            return self._meter.next_at()
        rate = self.limits.per_tenant.rate
        if rate is None:
            return None
        meters = [self._tenant_meter(tenant, rate) for tenant in tenants if tenant]
        return min((meter.next_at() for meter in meters if meter.room(now) == 0), default=None)

    def start(self, tenant: str | None, now: int) -> None:
        """A task starts."""
        self.running += 1
        if self._meter is not None:
            self._meter.start(1, now)
        if tenant is not None:
            self._running_of[tenant] += 1
            if self.limits.per_tenant.rate is not None:
                self._tenant_meter(tenant, self.limits.per_tenant.rate).start(1, now)

    def stop(self, tenant: str | None) -> None:
        """A task runs no more."""
        self.running -= 1
        if tenant is not None:
            self._running_of[tenant] -= 1
            if not self._running_of[tenant]:
                del self._running_of[tenant]

    def _tenant_meter(self, tenant: str, rate: RateLimit) -> Meter:
        return self._meter_of.setdefault(tenant, Meter(rate))


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)
