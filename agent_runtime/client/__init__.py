# SPDX-License-Identifier: Apache-2.0
"""The client's side: giving tasks to agents, and being one outside of the cluster, over whichever wire works.

    AgentClient ──► Calls ──► Pool ──► Way ──► Transport: gRPC, WebSocket, HTTP ──► a CentralAgent
    RemoteQueue ──►             └ the first one, in order of preference, that works

Guarantees
- What was submitted is queued once. A task without an id gets one before the first try; if its answer is lost and the
  repetition is refused as a duplicate, that is a success.
- A stream brings each item once: on another connection, of whatever protocol, it goes on after the last offset.
- What is claimed through one CentralAgent can be settled through any other. While none can be reached, handlers go on;
  what they return is settled as soon as there is one. Only what takes longer than a lease is run again, elsewhere.
- Every call has a deadline. An error of the server is the same class with the same code on every wire.

What breaks
    the connection, or the server's host   the next endpoint at once; probes, with backoff and full jitter, bring back
                                           what was preferred
    a server that hangs                    a call that is not answered for 10 s has its server probed
    a server that drains                   says so; new calls go elsewhere, streams move
    Redis, for one CentralAgent            the next endpoint; the error only if all say the same
    the key                                read again if it comes from a file; otherwise UnauthenticatedError
"""

from agent_runtime.client.agent_client import AgentClient, TaskHandle
from agent_runtime.client.endpoints import EndpointError
from agent_runtime.client.faults import NotFinishedError, TaskFailedError, UnknownServerError, UnreachableError
from agent_runtime.client.messages import Inbox, Message

__all__ = [
    "AgentClient",
    "EndpointError",
    "Inbox",
    "Message",
    "NotFinishedError",
    "TaskFailedError",
    "TaskHandle",
    "UnknownServerError",
    "UnreachableError",
]
