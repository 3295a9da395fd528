# SPDX-License-Identifier: Apache-2.0
"""Leadership: of several processes, at most one acts at a time.

Used twice: by the operator's replicas and by the pods of a CentralAgent. `base` has the interface, `lease` elects by a
Kubernetes Lease, `alone` is for a process that has no rivals.

# State machine of one process

    candidate ──takes the Lease──► leading ──stop()──► released (the Lease is empty: a rival takes it at its next look)
        ▲                             │
        ├── lost: a rival holds it, ◄─┤
        │   or it could not be        │
        │   renewed in time           │
        └── stepped down: the Lease ◄─┘
            is empty, others go first

# The trust window

A leader may act only while nobody else can. Each successful write of the Lease opens a window:

    trusted until = when the attempt STARTED + renew deadline        renew deadline = 2/3 of the lease duration

The start of the attempt, not its answer, because the answer may have been on its way for long. `is_leader` compares the
window with the clock each time it is asked, so a process that was frozen (SIGSTOP, a machine that was asleep, a blocked
event loop) sees that it leads no more with its very next question, before any timer has fired. The last third of the
duration is the margin for a request that was sent just before the window closed.

# Whose clock

Only the local monotonic one, so skewed clocks do no harm. It goes on while the machine is asleep; whether it does while
a hypervisor has paused the machine is the hypervisor's choice, and fencing (below) is for those where it does not. A
candidate does not compare `renewTime` with its own time: it watches whether the Lease *changes*, and takes it when it
has not for the whole duration that is written in it, since the candidate first saw it so. `renewTime` is written for
people and for observers.

# Fencing

Each term has a number, `leaseTransitions` of the Lease, which only ever grows. Also a process that takes a Lease that
names itself (its container restarted under the same pod name) begins a new term. Whatever only a leader may change
can be made to refuse an older number, so that even a request which was under way when the window closed does no harm.

# Stepping down

People let another process lead by annotating the Lease with the number of the term that is to end:

    term=$(kubectl get lease NAME -o jsonpath='{.spec.leaseTransitions}')
    kubectl annotate lease NAME --overwrite kubeagents.dev/stepDown="$term"

The leader sees it at its next renewal, which the annotation makes meet a conflict, gives the Lease up and writes into
it that it did (`kubeagents.dev/steppedDown`). It takes the Lease again only if nobody else has for one duration, also
if its process was replaced meanwhile. The number of a term that is over asks for nothing: nobody steps down twice.

# Failures

| failure                          | what happens                                                                      |
|----------------------------------|-----------------------------------------------------------------------------------|
| the leader crashes               | a rival leads after at most the duration + one retry                              |
| the leader is frozen             | the same; on waking it sees that the window is closed                             |
| the API server is away           | the leader acts until its window closes, then nobody leads until it is back       |
| two candidates take it at once   | the API server lets one write through (`resourceVersion`), the other stays behind |
| a renewal meets a conflict       | the Lease is read again; if it still names this term it is renewed, else lost     |
| the Lease is deleted             | the leader's term ends; with `create` the next one makes a new Lease              |
| asked to step down               | it leads no more, empties the Lease, and takes it only if nobody else does        |
| orderly stop                     | the Lease is emptied; a rival takes over at its next look, within two seconds     |
"""

from typing import TYPE_CHECKING, Any

from agent_runtime.leader.alone import AloneElector
from agent_runtime.leader.base import Elector

if TYPE_CHECKING:
    from agent_runtime.leader.lease import LeaseElector, LeaseTimes, connect

__all__ = ["AloneElector", "Elector", "LeaseElector", "LeaseTimes", "connect"]


def __getattr__(name: str) -> Any:
    """The Kubernetes client is an optional dependency and is loaded only where a Lease is wanted."""
    if name in ("LeaseElector", "LeaseTimes", "connect"):
        from agent_runtime.leader import lease

        return getattr(lease, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
