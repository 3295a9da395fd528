# SPDX-License-Identifier: Apache-2.0
"""Names that connect objects: the API group, labels, annotations, environment variables, well-known ports."""

GROUP = "kubeagents.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

FIELD_MANAGER = "kubeagents-operator"
"""The field manager of everything that the operator writes."""

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY_VALUE = "kubeagents"

OWNER_KIND = f"{GROUP}/kind"
"""Label on every child: the kind of the custom resource that it belongs to, for example `Agent`."""
OWNER_NAME = f"{GROUP}/name"
"""Label on every child: the name of the custom resource that it belongs to."""

CONFIG_HASH = f"{GROUP}/config-hash"
"""Annotation on pod templates: changes with the configuration, so that a change rolls the pods."""

APPLIED = f"{GROUP}/applied"
"""Annotation on every child: a digest of the manifest that the operator wrote it from."""

CONFIG = f"{GROUP}/config"
"""Annotation on the pod templates of Agents: the RuntimeConfig of their processes, which the pods mount as a file."""

TEMPLATE_HASH = f"{GROUP}/template-hash"
"""Annotation on pod templates: a digest of the template, which tells pods of the current one from older ones."""
REVISION = f"{GROUP}/revision"
"""Annotation on the pod templates of Agents: which version of the Agent it is. It changes with the spec and the code,
not with a restart or with what the queue says."""
RESTART_HASH = f"{GROUP}/restart-hash"
"""Annotation on the pod templates of Agents: changes with what replaces the pods of any version, such as a restart."""
TRACK = f"{GROUP}/track"
"""Label on the pods of a canary, which the others have not."""
TRACK_CANARY = "canary"

SCRAPE_SCHEME = "prometheus.io/scheme"
"""Annotation on pods: how their metrics are read, where that is not by plain HTTP. The chart's PodMonitor follows it,
and so do many configurations of Prometheus."""

RESTARTED_AT = f"{GROUP}/restartedAt"
"""Annotation on an Agent or CentralAgent: a new value replaces its pods one after the other."""
PROMOTE = f"{GROUP}/promote"
"""Annotation on an Agent: a new value ends the step of a rollout that waits."""
STEP_DOWN = f"{GROUP}/stepDown"
"""Annotation on a CentralAgent: a new value lets another pod lead. On a Lease: the term that is to end."""
STEP_DOWN_ASKED = f"{GROUP}/stepDownAsked"
"""Annotation on the Lease of a CentralAgent: the value of its `stepDown` that was passed on last."""
STEPPED_DOWN = f"{GROUP}/steppedDown"
"""Annotation on a Lease: who gave it up because it was asked to. It lets others go first."""
REPLAY_DEAD = f"{GROUP}/replayDead"
"""Annotation on a TaskQueue: a new value queues all its dead tasks again, once."""
ASKING = frozenset({RESTARTED_AT, PROMOTE, STEP_DOWN, REPLAY_DEAD})
"""The annotations by which people ask the operator for something that is no state."""

CONFIG_ENV = "KUBEAGENTS_CONFIG"
"""Environment variable of a runtime process: path of its RuntimeConfig (JSON)."""
INSTANCE_ENV = "KUBEAGENTS_INSTANCE"
"""Environment variable of a runtime process: its unique name, in a cluster the pod's name."""
REVISION_ENV = "KUBEAGENTS_REVISION"
"""Environment variable of an Agent's process: which version of the Agent it is, told by its heartbeats."""
TERMINATION_LOG_ENV = "KUBEAGENTS_TERMINATION_LOG"
"""Environment variable of a runtime process: where a fatal start-up error is written as JSON for the operator."""
RESERVED_ENV_PREFIX = "KUBEAGENTS_"

ADMIN_KEY = "key"
"""Entry of the Secret `admin_secret`."""

HTTP_PORT = 8080
"""The port every runtime pod listens on: health and metrics; on a CentralAgent also its HTTP API."""
GRPC_PORT = 9090
"""The port for gRPC, where it is served."""
ZEROMQ_PORT = 5555
"""The port for ZeroMQ, where it is served."""
REDIS_PORT = 6379


def admin_secret(central_agent: str) -> str:
    """Name of the Secret with the key of `admin`, which the operator makes for a CentralAgent without `spec.access`."""
    return f"{central_agent}-central-admin"
