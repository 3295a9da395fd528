# SPDX-License-Identifier: Apache-2.0
"""The status of a CentralAgent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kubeagents_api.conditions import ConditionType, Reason
from kubeagents_operator.observed import Lease
from kubeagents_operator.status import workload
from kubeagents_operator.status.conditions import (
    Fact,
    Previous,
    Report,
    Verdict,
    current,
    earliest,
    fact,
    format_time,
    of_verdict,
    parse_time,
    unknown,
)
from kubeagents_operator.status.workload import PodsState, QueueState

RENEW_TIME_SECONDS: Final = 30.0
"""`status.leaseRenewTime` follows the Lease at this pace."""


@dataclass(frozen=True, slots=True)
class CentralAgentState:
    """All that the status of a CentralAgent depends on."""

    obstacle: Verdict | None
    """What keeps the operator from doing anything for it."""
    suspended: bool
    pods: PodsState
    queues: Sequence[QueueState]
    lease: Lease | None
    lease_duration: float
    agent_timeout: float
    endpoint: str
    restarted_at: str | None = None
    """The annotation for a restart, once the Deployment has been told."""
    stepped_down: str | None = None
    """The annotation for another leader, once the leader has been asked."""


def report(state: CentralAgentState, previous: Previous, *, now: datetime, clock: float) -> Report:
    """The status. `clock` is the monotonic time by which Leases are observed."""
    deadline = state.pods.deadline
    connected = workload.queue_connected(state.queues, previous)
    lost = workload.failing(connected, previous, deadline=deadline, now=now)
    pods = workload.explained(workload.judge(state.pods, previous, now=now), lost)
    leader, again = _leader(state, previous, clock)
    verdict = workload.with_patience(state.obstacle, previous, deadline=deadline, now=now)
    verdict = verdict or (pods if pods.waiting() else lost)
    if verdict is None and not _changing_hands(state, previous, clock):
        verdict = workload.failing(leader, previous, deadline=deadline, now=now)
    if verdict is None:
        verdict = workload.at_rest() if state.suspended else current(pods.reason, pods.message)
    facts = (
        *of_verdict(verdict),
        workload.suspended(state.suspended),
        workload.available(state.pods, verdict),
        leader,
        connected,
    )
    fields = {
        **workload.fields(state.pods),
        **workload.handled(previous, restartedAt=state.restarted_at, stepDown=state.stepped_down),
        **_lease_fields(state, previous, leader),
        "agents": _agents(state, previous),
        "endpoint": state.endpoint,
    }
    renewal = RENEW_TIME_SECONDS if leader.status == "True" else None
    return Report(verdict, facts, fields, again=earliest(again, renewal, verdict.again))


def _leader(state: CentralAgentState, previous: Previous, clock: float) -> tuple[Fact, float | None]:
    """Whether somebody leads, and when that would end without a renewal."""
    type_ = ConditionType.LEADER_ELECTED
    if state.pods.wanted == 0:
        return unknown(type_, Reason.NOT_REQUIRED, "no replica is wanted"), None
    lease = state.lease
    if lease is not None and lease.held(clock):
        ends = lease.changed_at + lease.duration - clock + 0.5
        known = previous.fact(type_)
        if not lease.confirmed and known is not None:
            return known, ends
        return fact(type_, True, Reason.LEASE_HELD, f"pod {lease.holder} leads"), ends
    if lease is not None and lease.holder:
        return fact(type_, False, Reason.LEASE_EXPIRED, f"pod {lease.holder} has stopped renewing the Lease"), None
    # Vacant: between two leaders this lasts for seconds; look again when it should be over.
    return fact(type_, False, Reason.LEASE_EXPIRED, "no pod holds the Lease"), state.lease_duration


def _changing_hands(state: CentralAgentState, previous: Previous, clock: float) -> bool:
    """The Lease was given up just now and is about to be taken: an orderly change of leaders is no outage."""
    ready = previous.condition(ConditionType.READY)
    lease = state.lease
    return (
        ready.get("status") == "True"
        and lease is not None
        and not lease.holder
        and clock < lease.changed_at + state.lease_duration
    )


def _lease_fields(state: CentralAgentState, previous: Previous, leader: Fact) -> dict[str, Any]:
    lease = state.lease
    if lease is None:
        return {"leader": None, "leaseTransitions": None, "leaseRenewTime": None}
    return {
        "leader": lease.holder if leader.status == "True" else None,
        "leaseTransitions": lease.transitions,
        "leaseRenewTime": _renew_time(lease, previous),
    }


def _renew_time(lease: Lease, previous: Previous) -> str | None:
    """The time of the last renewal, but that of before while it is not much older: renewals come every few seconds."""
    if lease.renewed is None:
        return None
    before: str | None = previous.fields.get("leaseRenewTime")
    renewed = parse_time(lease.renewed)
    same_leader = previous.fields.get("leader") == lease.holder
    if before is not None and same_leader:
        age = (renewed - parse_time(before)).total_seconds()
        if 0 <= age < RENEW_TIME_SECONDS:
            return before
    return format_time(renewed)


def _agents(state: CentralAgentState, previous: Previous) -> str | None:
    """Healthy / known agent instances on all its queues."""
    samples = [queue.sample for queue in state.queues]
    if any(sample is None or state.agent_timeout not in sample.healthy for sample in samples):
        if any(sample is not None and sample.trouble is not None for sample in samples):
            return None
        kept: str | None = previous.fields.get("agents")
        return kept
    known = sum(len(sample.instances) for sample in samples if sample is not None)
    healthy = sum(len(sample.healthy[state.agent_timeout]) for sample in samples if sample is not None)
    return f"{healthy}/{known}"
