# SPDX-License-Identifier: Apache-2.0
"""What is known about a schedule: what a client reads, where `schedule` is what a manifest says."""

from datetime import datetime

from kubeagents_api.model import ApiModel


class ScheduleInfo(ApiModel):
    """One schedule of a queue, and when it fires."""

    name: str
    """Name of the schedule, unique in the queue."""
    queue: str
    """The TaskQueue."""
    cron: str | None = None
    """When, as five fields, if it is given so."""
    every_seconds: int | None = None
    """The interval in seconds, if it is given so."""
    time_zone: str
    """IANA name of the time zone that `cron` is in."""
    concurrency_policy: str
    """`Forbid`: a due time is left out while the schedule's last task has not ended."""
    suspend: bool = False
    """Whether due times are left out."""
    last_due_at: datetime | None = None
    """The last due time that it has fired for."""
    last_task: str | None = None
    """The task of that due time; it may have been forgotten since."""
    next_due_at: datetime | None = None
    """The next due time; absent while the schedule is suspended or faulty."""
    fault: str | None = None
    """Why it never fires: what is wrong with it, and what to write instead."""
