# SPDX-License-Identifier: Apache-2.0
"""How many attempts of a version have ended well, and how many not, over all of its processes.

A heartbeat says what its process has done since it began. A pod that restarts begins anew at zero, and a pod that goes
is forgotten by the queue; what they had done still counts. So the last figures of each process are kept, and their sum
is what the version has done.

After a restart of the operator, what was written down stands for the processes that are gone: as far as it is more than
those that live have done. That is exact unless processes ended and others went on while it was down; then it is less.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from kubeagents_api.task import InstanceInfo

_Process = tuple[str, datetime]


@dataclass
class Tally:
    """The figures of one version."""

    revision: str
    succeeded: int = 0
    """What was written down before; of processes that are gone, once the living have been counted."""
    failed: int = 0
    _last: dict[_Process, tuple[int, int]] = field(default_factory=dict)
    _settled: bool = False

    def take(self, instances: Iterable[InstanceInfo], *, pods: Collection[str]) -> None:
        """Take in a sample. `pods` are the pods of the canary: what the queue still knows of an earlier try with the
        same version does not count."""
        for one in instances:
            known = (one.instance, one.started_at) in self._last or one.instance in pods
            if known and one.revision in (self.revision, ""):
                self._last[one.instance, one.started_at] = (one.succeeded, one.failed)
        if not self._settled:
            self._settled = True
            self.succeeded = max(0, self.succeeded - sum(well for well, _ in self._last.values()))
            self.failed = max(0, self.failed - sum(badly for _, badly in self._last.values()))

    def total(self) -> tuple[int, int]:
        """Attempts that have succeeded and attempts that have failed."""
        return (
            self.succeeded + sum(well for well, _ in self._last.values()),
            self.failed + sum(badly for _, badly in self._last.values()),
        )
