# SPDX-License-Identifier: Apache-2.0
"""A small system of one queue and one agent, written into a folder."""

from pathlib import Path

SYSTEM = """\
apiVersion: kubeagents.dev/v1alpha1
kind: TaskQueue
metadata: {{name: tasks}}
spec:
  retry: {{maxAttempts: 2, initialSeconds: 0.05}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: code}}
data:
  work.py: |
{code}
---
apiVersion: kubeagents.dev/v1alpha1
kind: Agent
metadata: {{name: worker}}
spec:
  queueRef: {{name: tasks}}
  handler: {handler}
  drainSeconds: 20
  code: {{configMapRef: {{name: code}}}}
---
apiVersion: kubeagents.dev/v1alpha1
kind: CentralAgent
metadata: {{name: central}}
spec: {{queueRefs: [{{name: tasks}}]}}
"""

ECHO = """
async def handle(task, ctx):
    return task.payload
"""


def write_system(folder: Path, *, code: str = ECHO, handler: str = "work:handle") -> Path:
    """Write the manifests; returns their file."""
    path = folder / "system.yaml"
    indented = "\n".join(f"    {line}" for line in code.strip().splitlines())
    path.write_text(SYSTEM.format(code=indented, handler=handler))
    return path
