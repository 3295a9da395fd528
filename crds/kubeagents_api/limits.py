# SPDX-License-Identifier: Apache-2.0
"""How many tasks of a queue may wait, start and run: in all, and of each tenant."""

from typing import Literal

from pydantic import Field

from kubeagents_api.model import ApiModel, Rule


class RateLimit(ApiModel):
    """How many tasks may start in a time."""

    tasks: int = Field(ge=1, le=1000000)
    """How many, spread evenly over the time."""
    per_seconds: float = Field(default=1.0, gt=0, le=86400)
    """The time in seconds."""
    burst: int | None = Field(default=None, ge=1, le=1000000)
    """How many may start at once after a quiet time; as many as `tasks` if unset."""


class TenantLimits(ApiModel):
    """Limits that hold for the tasks of each tenant by itself."""

    rate: RateLimit | None = None
    """How many of a tenant's tasks may start in a time. Every attempt counts."""
    concurrency: int | None = Field(default=None, ge=1, le=1000000)
    """How many of a tenant's tasks may run at the same time."""


class QueueLimits(ApiModel):
    """How many tasks may wait, start and run. Without a limit there is none."""

    max_depth: int | None = Field(default=None, ge=1, le=100000000)
    """How many tasks may wait: queued, scheduled and blocked ones."""
    when_full: Literal["Refuse", "Shed", "Block"] = "Refuse"
    """What happens to tasks that would not fit. `Refuse`: they are refused with QUEUE_FULL (429 on HTTP). `Shed`:
    queued tasks of lower priority, the newest first, are cancelled in their favour; without such, they are refused.
    `Block`: the submission waits for room for up to `blockSeconds`, then they are refused."""
    block_seconds: float = Field(default=30.0, gt=0, le=3600)
    """The longest time in seconds that a submission waits."""
    rate: RateLimit | None = None
    """How many tasks may start in a time. Every attempt counts."""
    concurrency: int | None = Field(default=None, ge=1, le=1000000)
    """How many tasks may run at the same time, over all agents."""
    per_tenant: TenantLimits = TenantLimits()
    """Limits for each tenant by itself."""

    rules = (
        Rule(
            cel="self.whenFull == 'Refuse' || has(self.maxDepth)",
            message="limits.whenFull needs limits.maxDepth: set it, or remove whenFull",
            holds=lambda s: s.when_full == "Refuse" or s.max_depth is not None,
        ),
    )
