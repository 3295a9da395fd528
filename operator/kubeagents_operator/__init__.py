# SPDX-License-Identifier: Apache-2.0
"""The operator: makes the cluster what Agents, CentralAgents and TaskQueues say, and says in their status what it is.

# How a change travels

    API server ══ list, watch (kopf) ══► cache ──key──► work queue ──► reconcile(key) ──► children, status
                                          ▲                 ▲                │
                     answers of our own writes              └── sampler ◄────┘ (figures of the queues' Redis)

- `watches` runs kopf as the watch engine and nothing else: no annotation, no finalizer, no `status.kopf` is written.
- `cache` keeps of each object what a reconcile needs and no more. A LIST replaces what it holds, so nothing that was
  deleted while a watch was down stays in it.
- `workqueue` has each key at most once, runs a bounded number at a time and backs off per key; namespaces take `turns`.
- `reconcile` is level-triggered: it computes everything from the cache and the queue's sample, whatever the event was.
- `quotas` say how much of what its spec asks for an object may have, where namespaces are limited.
- `desired` says what the children should be: pure functions from specs to manifests.
- `status` says what an object is: pure functions from the children to conditions.
- `cluster` is the only module that talks to the API server.

# Guarantees

- It never writes `spec` or metadata of a custom resource, only `status`, and that at most once per reconcile.
- A child is written only when it differs in a field that the operator owns (`ownership`), be it because the spec or
  an operator version changed or because somebody else changed the child. A resync or a restart writes nothing.
- An object that exists and is not a child of the custom resource is never taken over.
- Children have owner references: what is deleted is collected, also while no operator runs.
- Among several replicas, only the one that holds the Lease writes; it asks before each write (`agent_runtime.leader`).
- A tenant with much to do delays the change of another by one object, not by all that it has waiting.
- What users get wrong ends in a condition, never in a crash of the operator.

# When something is away

| away              | what happens                                                                                   |
|-------------------|------------------------------------------------------------------------------------------------|
| the API server    | watches and writes are retried; the Lease runs out, the process ends and its next life stands by |
| a queue's Redis   | that queue and its agents say so; nobody else waits for it                                     |
| the operator      | running agents go on; on return only what differs is written                                   |
| the leader        | another replica with a warm cache goes on after the Lease's duration, at once on orderly stop  |
"""
