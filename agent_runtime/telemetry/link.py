# SPDX-License-Identifier: Apache-2.0
"""The state of one connection: logged when it changes, counted always, and shown by the probes."""

import logging
import time

from agent_runtime.telemetry.metrics import LinkMetrics
from kubeagents_api.errors import KubeagentsError

_log = logging.getLogger(__name__)


class Link:
    """Whether a queue answers. Everybody who calls the queue reports here how it went."""

    def __init__(self, queue: str, *, metrics: LinkMetrics) -> None:
        self.queue = queue
        self._metrics = metrics
        self._gauge = metrics.up.labels(queue)
        self._gauge.set(0)
        self._answered_once = False
        self._down_since = time.monotonic()
        self._reason: str | None = None

    @property
    def up(self) -> bool:
        """It has answered, and the last call did not fail."""
        return self._answered_once and self._reason is None

    @property
    def trouble(self) -> str | None:
        """Why it is not up, in words; None while it is."""
        if self._reason is not None:
            return f"{self._reason} (for {time.monotonic() - self._down_since:.0f} s)"
        return None if self._answered_once else "has not answered yet"

    def answered(self) -> None:
        """A call succeeded."""
        if self.up:
            return
        if self._reason is None:
            _log.info("queue %s answers", self.queue, extra={"queue": self.queue})
        else:
            down = time.monotonic() - self._down_since
            _log.info("queue %s answers again after %.1f s", self.queue, down, extra={"queue": self.queue})
        self._answered_once, self._reason = True, None
        self._gauge.set(1)

    def failed(self, error: KubeagentsError) -> None:
        """A call failed because the queue did not answer or refused us."""
        self._metrics.errors.labels(self.queue, error.code).inc()
        if self._reason is None:
            self._down_since = time.monotonic()
            self._gauge.set(0)
        if self._reason != (reason := str(error)):
            self._reason = reason
            _log.warning("queue %s does not answer, trying on: %s", self.queue, reason, extra={"queue": self.queue})
