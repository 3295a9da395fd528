# SPDX-License-Identifier: Apache-2.0
"""How many replicas an Agent has, and which ones go when there are too many.

    sample of the queue ──► demand ──► autoscaler ──┐
    spec.replicas (people, HPA, KEDA), suspend ─────┴──► wanted ──► removal ──► kept replicas, marks, cordons
                                                                      ▲              │          │
                                     pods, what they say ─────────────┘        Deployment     queue

- `demand` says what there is to do for one Agent, by figures of its queue that are all of one moment.
- `autoscaler` makes a number of it. It remembers what was needed for as long as its windows are, and nothing else.
- `removal` chooses who goes, and says when. It remembers nothing: all of its state is on the pods.
- `cordons` holds the queue's cordons to what is wished, with each sample. The state is in the queue.
- `plan` is what the rest of the operator sees of it all.

# Guarantees

- A pod is removed only when it has said, after it was cordoned, that it works on nothing; or when it has had
  `drainSeconds` for that. Then SIGTERM gives it as much again, and what is left costs no attempt. It does not matter
  who wants fewer: the autoscaler, `kubectl scale`, an HPA, KEDA, suspend.
- The ReplicaSet removes the pods that were chosen: their deletion cost is on them, and seen, before it is told.
- The operator never writes `spec.replicas`, and with `spec.autoscaling` never reads it.
- What was not seen is no reason to take anything away: neither after a restart nor while the queue cannot be asked.

# When something goes wrong in the midst

| what                     | then                                                                                    |
|--------------------------|-----------------------------------------------------------------------------------------|
| the operator dies        | the next one finds marks and cordons, asks for a heartbeat of its own, and goes on      |
| a pod dies               | it counts no more; so many fewer have to go                                             |
| Redis is away            | who was cordoned stays so; after `drainSeconds` pods go all the same                    |
| replicas are needed again | marks and cordons are lifted, and only what is missing then is started                 |
| a rolling update begins  | the Deployment decides which pods of which version go; each has its `drainSeconds`      |
| a step of a canary lasts | each version gives up pods of its own, so that their shares stay                        |
| pods may not be patched  | none goes; the Agent is Stalled and says why                                            |
"""
