# SPDX-License-Identifier: Apache-2.0
"""How many replicas an Agent with `spec.autoscaling` needs.

    enough    = ceil((waiting + running) / (concurrency x targetUtilization))
    late      = a task waits for longer than maxQueueSeconds though targetUtilization of the slots are in use: half as
                many again as are ready, at least one more
    needed    = the greater of both, between minReplicas and maxReplicas

What runs counts like what waits: a queue that is empty because everything is being worked on is no reason to go.
More replicas are taken as soon as they have been needed throughout scaleUp.stabilizationWindowSeconds, fewer as soon
as they have been enough throughout scaleDown.stabilizationWindowSeconds. The last replica goes when there has been
nothing to do for idleSeconds, and only then.

A task that waits while slots are free waits for something else than a replica: for a limit of its queue or tenant, or
for a pod of its choice. It makes nobody late.

What was not seen cannot count as little: a restart of the operator and a time in which the queue could not be asked
begin the windows anew, so nothing is taken away before a whole window has been watched. A paused queue adds nothing.
"""

import math
from dataclasses import dataclass, field, replace

from kubeagents_api.agent import Autoscaling
from kubeagents_operator.scaling.demand import Demand

_ROUNDING = 1e-9


@dataclass(slots=True)
class History:
    """What was needed, and since when that has been watched without a gap. Times are those of a monotonic clock."""

    began: float
    needs: list[tuple[float, int]] = field(default_factory=list)
    """From when on how many were needed; each holds until the next one."""
    idle_since: float | None = None

    def note(self, now: float, need: int, *, idle: bool, horizon: float) -> None:
        """This is needed from now on. What ended before the horizon is forgotten."""
        if not self.needs or self.needs[-1][1] != need:
            self.needs.append((now, need))
        while len(self.needs) > 1 and self.needs[1][0] <= now - horizon:
            del self.needs[0]
        if not idle:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now

    def within(self, now: float, window: float) -> list[int]:
        """What was needed within the last `window` seconds, the present included."""
        ends = [start for start, _ in self.needs[1:]]
        past = [need for (_, need), end in zip(self.needs, ends, strict=False) if end > now - window]
        return [*past, self.needs[-1][1]]

    def next_change(self, now: float, window: float) -> float:
        """After how many seconds the window shows something else, if what is needed stays the same."""
        moments = [self.began + window, *(start + window for start, _ in self.needs[1:])]
        return min((moment - now for moment in moments if moment > now), default=window)


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision depends on, its history excepted."""

    settings: Autoscaling
    concurrency: int
    demand: Demand
    current: int
    """How many there should be by the decision of before."""
    ready: int
    """How many of them are ready."""
    oldest_age: float
    """Of the oldest waiting task within reach, in seconds; 0 if there is none."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas there should be."""

    wanted: int
    again: float | None = None
    """Seconds after which another one may be due though nothing happens."""
    why: str = ""
    """The figures that it was made by, as text for people; empty if there were none."""


class Autoscaler:
    """Decides for every Agent. Remembers what each needed, for as long as the windows are."""

    def __init__(self) -> None:
        self._histories: dict[object, History] = {}

    def decide(self, key: object, situation: Situation, *, now: float) -> Decision:
        """The decision for an Agent of which a sample was taken that is still true."""
        history = self._histories.setdefault(key, History(began=now))
        settings, demand = situation.settings, situation.demand
        up = float(settings.scale_up.stabilization_window_seconds)
        down = float(settings.scale_down.stabilization_window_seconds)
        need = needed(situation)
        history.note(now, max(need, 1), idle=demand.is_idle(), horizon=max(up, down))
        made = _stabilized(history, situation.current, up=up, down=down, now=now)
        if settings.min_replicas == 0 and need == 0 and made.wanted <= 1:
            made = _last(history, situation, made, now=now)
        wanted = min(max(made.wanted, settings.min_replicas), settings.max_replicas)
        left = settings.max_queue_seconds - situation.oldest_age
        if demand.oldest_at is not None and left > 0:
            made = _by(made, left)
        return replace(made, wanted=wanted, why=_figures(situation))

    def blind(self, key: object, settings: Autoscaling, *, current: int) -> Decision:
        """The decision while the queue cannot be asked: what there is stays, within the limits."""
        self.forget(key)
        return Decision(min(max(current, settings.min_replicas), settings.max_replicas))

    def forget(self, key: object) -> None:
        """The Agent is gone, at rest, or not seen: its windows begin anew."""
        self._histories.pop(key, None)


def needed(situation: Situation) -> int:
    """How many replicas what there is to do needs at this moment, within the limits; 0 if there is nothing to do."""
    settings, demand = situation.settings, situation.demand
    per_replica = situation.concurrency * settings.target_utilization
    need = math.ceil((demand.waiting + demand.running) / per_replica - _ROUNDING)
    late = demand.oldest_at is not None and situation.oldest_age > settings.max_queue_seconds
    if late and demand.utilization >= settings.target_utilization:
        need = max(need, situation.current, situation.ready + max(1, situation.ready // 2))
    if demand.paused:
        need = min(need, situation.current)
    return min(max(need, settings.min_replicas), settings.max_replicas)


def _stabilized(history: History, current: int, *, up: float, down: float, now: float) -> Decision:
    watched = now - history.began
    least, most = min(history.within(now, up)), max(history.within(now, down))
    if least > current and watched >= up:
        return Decision(least)
    wanted = most if most < current and watched >= down else current
    need = history.needs[-1][1]
    if need > wanted:
        return Decision(wanted, history.next_change(now, up))
    return Decision(wanted, history.next_change(now, down) if need < wanted else None)


def _last(history: History, situation: Situation, made: Decision, *, now: float) -> Decision:
    """Whether the last replica goes, or there is none to begin with."""
    if situation.current == 0:
        return Decision(0)
    if history.idle_since is None:
        return made
    left = history.idle_since + situation.settings.idle_seconds - now
    return Decision(0) if left <= 0 else _by(replace(made, wanted=1), left)


def _figures(situation: Situation) -> str:
    demand, age = situation.demand, situation.oldest_age
    wait = f"{demand.waiting} task{' waits' if demand.waiting == 1 else 's wait'}"
    late = f" (the oldest for {age:.0f} s)" if age > situation.settings.max_queue_seconds else ""
    return f"{wait}{late}, {demand.running} {'runs' if demand.running == 1 else 'run'}"


def _by(made: Decision, seconds: float) -> Decision:
    """The same decision, to be taken again within so many seconds."""
    return replace(made, again=seconds if made.again is None else min(made.again, seconds))
