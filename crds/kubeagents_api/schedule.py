# SPDX-License-Identifier: Apache-2.0
"""Tasks that a queue submits by itself, again and again."""

import re
from typing import Any, Literal

from pydantic import Field

from kubeagents_api.model import ApiModel, ObjectName, Rule
from kubeagents_api.task import PRIORITY_DEFAULT, PRIORITY_HIGHEST, PRIORITY_LOWEST, Tenant

CRON = re.compile(r"^ *[0-9A-Za-z*/,#-]+( +[0-9A-Za-z*/,#-]+){4} *$")
"""Five fields. Whether each makes sense is known to whoever computes the due times."""


class ScheduledTask(ApiModel):
    """The task that a schedule submits. Its id is the schedule's name and the due time."""

    agent: ObjectName | None = None
    """The Agent that must do it. At most one of `agent` and `capability` may be set."""
    capability: ObjectName | None = None
    """What the Agent must be able to do."""
    type: str = Field(default="", max_length=253)
    """A word for the handler, to tell kinds of work apart."""
    payload: Any = Field(default=None, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
    """The input, any JSON value."""
    priority: int = Field(default=PRIORITY_DEFAULT, ge=PRIORITY_LOWEST, le=PRIORITY_HIGHEST)
    """0 (last) to 9 (first)."""
    timeout_seconds: float | None = Field(default=None, gt=0, le=604800)
    """Seconds that one attempt may take; the queue's `taskTimeoutSeconds` if unset."""
    max_attempts: int | None = Field(default=None, ge=1, le=100)
    """Attempts in all; the queue's `retry.maxAttempts` if unset."""
    tenant: Tenant | None = None
    """Whose task it is."""

    rules = (
        Rule(
            cel="!has(self.agent) || !has(self.capability)",
            message="task needs at most one of agent and capability",
            holds=lambda s: s.agent is None or s.capability is None,
        ),
    )


class Schedule(ApiModel):
    """When which task is submitted: once for each due time, whichever CentralAgent leads."""

    name: ObjectName
    """Name of the schedule, unique in the queue."""
    cron: str | None = Field(default=None, min_length=1, max_length=253)
    """When, as five fields: minute, hour, day of month, month, day of week. Exactly one of `cron` and
    `everySeconds`."""
    every_seconds: int | None = Field(default=None, ge=1, le=31536000)
    """The interval in seconds. Due times are its multiples since 1970, so that they do not depend on who leads."""
    time_zone: str = Field(default="Etc/UTC", pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$", max_length=64)
    """IANA name of the time zone that `cron` is in."""
    concurrency_policy: Literal["Allow", "Forbid"] = "Allow"
    """`Forbid`: a due time is left out while the schedule's last task has not ended."""
    starting_deadline_seconds: int = Field(default=300, ge=1, le=604800)
    """Of the due times that were missed, because nobody led, the last one is made up for if it is not older than
    this."""
    suspend: bool = False
    """Whether due times are left out."""
    task: ScheduledTask = ScheduledTask()
    """What is submitted."""

    rules = (
        Rule(
            cel="has(self.cron) != has(self.everySeconds)",
            message="schedule needs exactly one of cron and everySeconds",
            holds=lambda s: (s.cron is None) != (s.every_seconds is None),
        ),
        Rule(
            cel=f"!has(self.cron) || self.cron.matches(r'{CRON.pattern}')",
            message="cron needs five fields (minute, hour, day of month, month, day of week), for example 30 6 * * 1-5",
            holds=lambda s: s.cron is None or CRON.fullmatch(s.cron) is not None,
        ),
    )
