# SPDX-License-Identifier: Apache-2.0
"""What is reconciled: one custom resource, named by kind, namespace and name."""

from typing import NamedTuple


class Key(NamedTuple):
    """One custom resource. The unit of the work queue."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Name(NamedTuple):
    """One object of a kind that is known from the context."""

    namespace: str
    name: str
