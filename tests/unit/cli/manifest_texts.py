# SPDX-License-Identifier: Apache-2.0
"""Manifests that the tests vary."""

QUEUE = """
apiVersion: kubeagents.dev/v1alpha1
kind: TaskQueue
metadata: {name: tasks}
"""

EXTERNAL_QUEUE = """
apiVersion: kubeagents.dev/v1alpha1
kind: TaskQueue
metadata: {name: tasks}
spec: {redis: {external: {secretRef: {name: redis}}}}
"""

AGENT = """
apiVersion: kubeagents.dev/v1alpha1
kind: Agent
metadata: {name: echo}
spec:
  replicas: 2
  queueRef: {name: tasks}
  handler: echo:handle
  code: {configMapRef: {name: code}}
"""

CENTRAL = """
apiVersion: kubeagents.dev/v1alpha1
kind: CentralAgent
metadata: {name: central}
spec: {queueRefs: [{name: tasks}]}
"""

CODE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: code}
data:
  echo.py: |
    async def handle(task, ctx):
        return task.payload
"""

REDIS = """
apiVersion: v1
kind: Secret
metadata: {name: redis}
stringData: {url: "redis://:hunter2@127.0.0.1:6379/0"}
"""


def documents(*texts: str) -> str:
    """One YAML file of several documents."""
    return "---".join(texts)
