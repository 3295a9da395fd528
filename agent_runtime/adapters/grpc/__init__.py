# SPDX-License-Identifier: Apache-2.0
"""gRPC: the calls of `kubeagents.v1` (`agent_runtime.protos`), health and reflection, on a port of its own.

    channel ──HTTP/2──► grpc.aio ──bytes──► envelope ──► Tasks · Queues · Work ──► Core
                                           admits, parses,        translate
                                           counts, refuses

- `envelope`: around every call. `errors`: from errors to statuses. `reading`, `writing`: between messages and models.
- `tasks`, `queues`, `work`: one class for each service, a method for each call.

A status always says in google.rpc.ErrorInfo why, in the words of all wires. Nothing that a client sends is answered
with INTERNAL or UNKNOWN. Health and reflection need no key: they are for probes, balancers and tools.

The server knows the deadline of a call. Run makes it the deadline of the task, so that nobody works on what nobody
waits for; for the same reason a Run that is cancelled cancels its task. Everything else that a call has begun, goes on.

When the process drains, health says NOT_SERVING at once, waits are answered with what there is, and streams end with
UNAVAILABLE and the advice to go on elsewhere. Then the server takes no new calls, lets running ones end within the
grace, and cuts the others. A connection that breaks loses nothing: claimed tasks that could not be written are given
back, others are held until their lease is over, and streams go on after the last offset.
"""
