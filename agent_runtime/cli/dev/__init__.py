# SPDX-License-Identifier: Apache-2.0
"""`kubeagents dev`: the manifests of a cluster, run in local processes.

    manifests  files -> documents, validated by the same models as the cluster's CRDs
    plan       documents -> processes; every reference is checked before anything starts
    supervisor the private Redis, the processes, their restarts, their logs, the orderly end

Same in both places: the RuntimeConfig comes from the same pure functions that the operator calls, the processes are the
same `python -m agent_runtime`, the code comes from the same ConfigMaps. Different here: all queues whose Redis is
`managed` share one private Valkey on a loopback port with a random password; `image`, `resources` and the other pod
settings do not apply, the handlers are imported in this Python environment; a CentralAgent runs once and leads.

Who ends whom:

    terminal ──Ctrl-C──► supervisor ──SIGTERM──► agents, then CentralAgents, then Valkey       (second Ctrl-C: SIGKILL)
                             │ pipe
                             ▼ end of file
                         watchdog ──SIGKILL──► its process group

All processes are members of the watchdog's process group. However the supervisor ends, even by SIGKILL, the pipe is
closed, and the watchdog takes the whole group with it and removes the temporary files. No list of process ids can be
stale.

Failures: a process that ends is started again with backoff; exit code 78 (the configuration can never work) ends the
session with the process's own message; so does the end of Valkey, because its tasks are gone with it.
"""
