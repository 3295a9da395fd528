# SPDX-License-Identifier: Apache-2.0
"""Decides about a rollout: a pure function, called with each reconcile."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from kubeagents_api.agent import RolloutStrategy
from kubeagents_operator.rollout import shares
from kubeagents_operator.rollout.state import State
from kubeagents_operator.status.news import News

LOOK_SECONDS: Final = 2.0
"""Between two looks at the figures of a canary: a sample does not announce them."""
_YOUNG = timedelta(seconds=60)
"""For so long after its pods are there, a step is decided by fresh figures: a version that fails does so at once as a
rule, and fails one attempt after the other while nobody looks. Later, and for days, the usual samples will do."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One of the two Deployments, as it is."""

    revision: str
    wanted: int
    complete: bool
    """All its replicas are of its template, and available."""
    works: bool
    """All its replicas are of its template, and at least one is available."""

    @property
    def working(self) -> str | None:
        """Its version, if it is seen to work."""
        return self.revision if self.works else None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the decision depends on, besides the state."""

    wanted: str
    """The version that the spec says."""
    replicas: int
    """How many replicas both Deployments have together."""
    stable: Workload | None
    """None if there is none, and its template is not known either."""
    canary: Workload | None
    trouble: str | None
    """Why the pods of the canary do not work and will not."""
    promote: str | None
    """The annotation by which people end a step that waits."""
    now: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    state: State | None
    """What is remembered from now on; None: nothing."""
    keeps: str | None
    """The version that the stable Deployment keeps; None if it gets the one of the spec."""
    stable: int
    """Its replicas."""
    canary: int | None = None
    """Those of the canary, which always has the version of the spec; None: there is no canary."""
    news: tuple[News, ...] = ()
    again: float | None = None
    """Seconds after which to decide again, whether or not anything happens."""
    young: bool = False
    """A step has just begun: the figures should be fresh."""


def advance(state: State, strategy: RolloutStrategy | None, seen: Seen) -> Plan:
    """The next state, and what the two Deployments should be in it."""
    state = replace(state, steps=len(strategy.steps) if strategy is not None and state.step is not None else None)
    stable = seen.stable
    if strategy is None:
        return _without_strategy(state, seen)
    if state.promoting and state.canary == seen.wanted:
        return _promote(state, strategy, seen)
    if stable is None or stable.revision == seen.wanted:
        return _all(state, seen, known=stable is not None and seen.wanted in (state.stable, stable.working))
    if stable.revision not in (state.stable, stable.working):
        return _all(state, seen, known=False)  # It has never worked: there is nothing to protect.
    if state.failed == seen.wanted:
        kept = replace(state, stable=stable.revision, canary=None, step=None, step_started_at=None)
        return _keep(kept, stable.revision, seen)
    if state.trying and state.canary == seen.wanted:
        return _try(replace(state, stable=stable.revision), strategy, seen)
    begun = State(
        stable=stable.revision, canary=seen.wanted, step=1, steps=len(strategy.steps), promoted=seen.promote or None
    )
    plan = _try(begun, strategy, replace(seen, canary=None, trouble=None))
    note = f"step 1 of {len(strategy.steps)}: {strategy.steps[0].percent} % of the replicas get the new version"
    return replace(plan, news=(News("CanaryStarted", note),))


def _all(state: State, seen: Seen, *, known: bool) -> Plan:
    """All replicas get, or have, the version of the spec."""
    rest = State(stable=seen.wanted if known else None, promoted=state.promoted)
    return Plan(rest, keeps=None, stable=seen.replicas)


def _keep(state: State, revision: str, seen: Seen) -> Plan:
    """All replicas stay at the version that is known to work."""
    return Plan(state, keeps=revision, stable=seen.replicas)


def _without_strategy(state: State, seen: Seen) -> Plan:
    """A plain rolling update. A canary of the same version helps out until it is over."""
    updated = seen.stable is not None and seen.stable.revision == seen.wanted and seen.stable.complete
    if seen.canary is None or state.canary != seen.wanted or updated:
        return Plan(None, keeps=None, stable=seen.replicas)
    promoting = replace(state, stable=seen.wanted, step=None, step_started_at=None)
    return Plan(promoting, keeps=None, stable=seen.replicas, canary=min(seen.canary.wanted, seen.replicas))


def _promote(state: State, strategy: RolloutStrategy, seen: Seen) -> Plan:
    """The stable Deployment gets the new version; the canary's pods stay until all of its own are ready."""
    stable = seen.stable
    if stable is not None and stable.revision == seen.wanted and stable.complete and stable.wanted == seen.replicas:
        return Plan(State(stable=seen.wanted, promoted=state.promoted), keeps=None, stable=seen.replicas)
    share = shares.canary(strategy.steps[-1].percent, seen.replicas)
    return Plan(state, keeps=None, stable=seen.replicas, canary=share)


def _try(state: State, strategy: RolloutStrategy, seen: Seen) -> Plan:
    """One look at a canary."""
    assert state.stable is not None  # noqa: S101 - a canary is under way
    assert state.step is not None  # noqa: S101
    if (failure := _failure(state, strategy, seen)) is not None:
        failed = State(
            stable=state.stable,
            failed=state.canary,
            failure=failure,
            promoted=state.promoted,
            succeeded=state.succeeded,
            failed_attempts=state.failed_attempts,
        )
        return _keep(failed, state.stable, seen)
    number = min(state.step, len(strategy.steps))
    step = strategy.steps[number - 1]
    share = shares.canary(step.percent, seen.replicas)
    before = shares.canary(strategy.steps[number - 2].percent, seen.replicas) if number > 1 else 0
    ready = (
        seen.canary is not None
        and (seen.canary.revision, seen.canary.wanted) == (state.canary, share)
        and seen.canary.complete
        and share > 0
    )
    started = state.step_started_at
    if started is None and ready:
        started = seen.now
    if seen.replicas == 0:
        started = None  # Its time does not count while nothing runs.
    state = replace(state, step=number, step_started_at=started)
    if started is not None and ready and state.finished >= strategy.min_tasks and _due(state, strategy, seen, started):
        return _end_step(state, strategy, seen)
    return Plan(
        state,
        keeps=state.stable,
        stable=shares.stable(seen.replicas, canary=share if started is not None else before),
        canary=share,
        again=LOOK_SECONDS if seen.replicas else None,
        young=started is not None and seen.now < started + _YOUNG,
    )


def _failure(state: State, strategy: RolloutStrategy, seen: Seen) -> str | None:
    """Why the canary is to be taken back, if it is."""
    if seen.trouble is not None:
        return f"its pods do not come up: {seen.trouble}"
    if state.finished < max(1, strategy.min_tasks):
        return None
    if state.succeeded / state.finished >= strategy.min_success_rate:
        return None
    return (
        f"{state.failed_attempts} of its {state.finished} task attempts failed, and "
        f"spec.rollout.minSuccessRate is {strategy.min_success_rate:g}"
    )


def _due(state: State, strategy: RolloutStrategy, seen: Seen, started: datetime) -> bool:
    """The pause of the step is over."""
    assert state.step is not None  # noqa: S101 - a canary is under way
    pause = strategy.steps[state.step - 1].pause_seconds
    if pause is None:
        return seen.promote is not None and seen.promote != state.promoted
    return seen.now >= started + timedelta(seconds=pause)


def _end_step(state: State, strategy: RolloutStrategy, seen: Seen) -> Plan:
    """On to the next step, or, after the last one, to all replicas."""
    assert state.step is not None  # noqa: S101 - a canary is under way
    ended, steps = state.step, len(strategy.steps)
    promoted = seen.promote if seen.promote is not None else state.promoted
    evidence = f"{state.succeeded} of {state.finished} task attempts succeeded" if state.finished else "no task came"
    if ended == steps:
        passed = replace(state, stable=state.canary, step=None, steps=None, step_started_at=None, promoted=promoted)
        note = f"all replicas get the new version: {evidence}"
        return replace(_promote(passed, strategy, seen), news=(News("CanaryPromoted", note),))
    share = shares.canary(strategy.steps[ended - 1].percent, seen.replicas)
    following = replace(state, step=ended + 1, step_started_at=None, promoted=promoted)
    percent = strategy.steps[ended].percent
    note = f"step {ended + 1} of {steps}: {percent} % of the replicas get the new version: {evidence}"
    return Plan(
        following,
        keeps=state.stable,
        stable=shares.stable(seen.replicas, canary=share),
        canary=shares.canary(percent, seen.replicas),
        news=(News("CanaryStepped", note),),
        again=LOOK_SECONDS,
    )
