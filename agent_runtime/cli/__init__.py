# SPDX-License-Identifier: Apache-2.0
"""The `kubeagents` command, also installed as `kubectl-agents` so that `kubectl agents …` works.

    dev       run manifests in local processes, with a private Redis       submit   give tasks to agents
    get       agents, queues, schedules, tasks, dead tasks                 result   show the results of tasks
    dead      look at dead tasks, replay or purge them                     watch    what a task says while it runs
    queue     pause and resume queues, close and open them                 cancel   end tasks
    logs      what agents print                                            events   what happens in a queue
                                                                           version  of this program and of the server

One module per command. A command is a thin function: options in, one call of the HTTP API (`api`), rows out (`output`).
The CLI has no way around the HTTP API of a CentralAgent; it never talks to Redis.

Which server: `--server`, then KUBEAGENTS_SERVER, then a running `kubeagents dev`, then the current context of the
kubeconfig, where the API server's service proxy leads to the CentralAgent (`server`). As `kubectl agents` a local
session is not looked at: whoever types kubectl means the cluster.

Where things go: results on stdout, everything said about them (progress, hints, errors) on stderr. Exit codes: 0 done,
1 it did not work or a task failed, 2 wrong usage, 3 a task is not finished yet, 130 interrupted. Whatever a user can
cause ends in one `error:` line that says what to do, never in a traceback.

Heavy imports (HTTP, Kubernetes, the API models) are inside the functions that need them: `--help` stays quick.
"""
