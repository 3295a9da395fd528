# SPDX-License-Identifier: Apache-2.0
"""How many replicas each of the two Deployments has."""


def canary(percent: int, replicas: int) -> int:
    """The canary's share: at least one, and at least one is left for the stable version.

    With a single replica the canary is a second one, on top; without any, there is no canary.
    """
    if replicas <= 1:
        return replicas
    return min(-(-percent * replicas // 100), replicas - 1)


def stable(replicas: int, *, canary: int) -> int:
    """What is left for the stable version, which keeps at least one."""
    return max(replicas - canary, min(replicas, 1))
