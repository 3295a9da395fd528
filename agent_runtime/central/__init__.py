# SPDX-License-Identifier: Apache-2.0
"""What a CentralAgent does, whatever wire it is asked over.

- `core`: submit, look up, wait, the registry's views; `adapters.base.Core` describes it from the outside. It holds no
  task and no registry of its own: everything is in the queues, so every pod answers the same and any may be killed.
- `observer`: looks at each queue every few seconds, for the metrics and for readiness.
- `duties`: what must be done once, by the pod that leads: forget agent processes that have been silent for long, and
  fire schedules (`schedules`).

Readiness: a pod is ready while at least one of its queues answers. A broken Redis takes its own queue down (503 with
Retry-After), not the others that the same CentralAgent serves; `/readyz` names the broken ones all the same.

Draining: on SIGTERM the pod is not ready at once, answers running waits (202: ask again), and goes on serving for some
seconds, because a Service sends new connections until every node knows better. Then it stops listening.
"""

from agent_runtime.central.core import Central
from agent_runtime.central.duties import Duties
from agent_runtime.central.observer import Observer
from agent_runtime.central.schedules import Schedules
from agent_runtime.central.served import ServedQueue

__all__ = ["Central", "Duties", "Observer", "Schedules", "ServedQueue"]
