# SPDX-License-Identifier: Apache-2.0
"""What a process says about itself: logs, metrics and two probes. The lowest layer: it knows no task and no queue.

- `logs`: one line per event on standard error, JSON for machines or text for people.
- `metrics`: a Prometheus registry per process, never the global one, so that two parts in one test do not mix.
- `link`: the state of one connection. It is logged when it changes, not when it is used: an outage is two lines.
- `loop_watch`: tells when somebody blocks the event loop, and which line of code does.
- `probes`: `/healthz`, `/readyz`, `/metrics` as a bare ASGI application.
- `http_server`: uvicorn inside the caller's event loop, without its signal handlers.

What the probes promise:

    /healthz  200 while the process makes progress. A restart helps when it does not, and only then: an unreachable
              Redis is no reason. A blocked event loop cannot answer at all, which the kubelet counts as a failure.
    /readyz   200 only while the process really does its job; the body always says which check fails and why.
"""
