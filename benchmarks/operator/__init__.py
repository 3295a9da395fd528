# SPDX-License-Identifier: Apache-2.0
"""How fast the operator is, beside no operator at all and beside a plain one, on a real control plane with fake nodes.

# Contenders, each on a control plane of its own that was just started

- `direct`: a client creates each Agent and, with the next requests, its children. Nobody can be faster: this is what
  the control plane takes, with which all contenders share the same few cores.
- `plain_kopf`: an operator as the documentation of kopf teaches it (`plain_kopf.py`): handlers for create and update
  which create a Deployment and a Service by the official client. It makes two children, without a ServiceAccount, and
  no status.
- `kubeagents`: ours with its default settings, as a process, all three children and the status.

# Scenes

1. N Agents are applied, 50 requests in flight, in namespaces of 100 with one TaskQueue each. The clock starts with the
   first request, for all contenders alike. `children_seconds` is when the last child has been created, by the audit log
   of the API server. `ready_seconds` is when the last Agent says that it is Ready: kwok makes its pod ready, and a crew
   (`crew.py`) plays the workers of all pods, of whichever contender, that is, writes their heartbeats to Redis.
2. Every Agent gets an annotation that concerns nobody: events, but nothing to do.
3. One field of 100 Agents is changed.
4. Under load: the same field is changed on 5 Agents per second, each of which replaces its pod, while others are
   created and deleted. Latency is from when the request is sent to when the API server has accepted the changed
   Deployment.
5. The operator is restarted: from the start of the process to when it leads and has looked at every object.
6. The API server is killed and started: from when it is ready again to when a change is carried out.

# What is counted

Writes are counted by the API server itself, which audits what the contender's user writes; the operator's own metrics
are held against it. Left out is the renewal of the operator's own Lease. Processor time and memory are those of the
operator's process, by the kernel.
"""
