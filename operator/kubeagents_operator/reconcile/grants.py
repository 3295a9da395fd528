# SPDX-License-Identifier: Apache-2.0
"""TaskQueues of other namespaces: who may use them, and how the URL of their Redis gets to where it is used.

Pods read Secrets of their own namespace only. So the URL is copied into a Secret that is a child of the Agent or
CentralAgent, as long as `spec.allowedNamespaces` of the TaskQueue names that namespace.

- Without the grant nobody learns anything: neither the URL nor whether there is such a queue, which is why a missing
  queue and a missing grant are one reason with one message.
- When the grant is withdrawn, or the queue is deleted, all children go, the Secret and the pods that have the URL in
  their environment with them; the pods finish or give back what they run. Who has read the password meanwhile still
  knows it: that is what changing it is for.
- What is not granted does not count: not as a taker of tasks, nor as one who serves schedules.
"""

from collections import OrderedDict
from typing import Any

from kubeagents_api.conditions import Reason
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.observed import Custom
from kubeagents_operator.reconcile.base import Tools
from kubeagents_operator.sampler import Trouble
from kubeagents_operator.watched import SECRET

_REMEMBERED = 1024
"""URLs."""


def granted(queue: Custom | None, namespace: str) -> bool:
    """Whether users in another namespace may use the queue. The spec is read as it is, not validated."""
    if queue is None or queue.deleting:
        return False
    allowed: Any = queue.spec.get("allowedNamespaces")
    return isinstance(allowed, list) and ("*" in allowed or namespace in allowed)


def refusal(tools: Tools, queue: Key, namespace: str, *, referrer: str) -> Trouble | None:
    """Why users in a namespace may not use the queue of another one; None if they may."""
    if tools.namespaces and queue.namespace not in tools.namespaces:
        message = (
            f'the operator does not serve namespace "{queue.namespace}": add it to operator.watchNamespaces of the '
            f"chart (KUBEAGENTS_WATCH_NAMESPACES), or correct {referrer}.namespace"
        )
        return Trouble(Reason.DEPENDENCY_NOT_FOUND, message)
    if granted(tools.cache.custom(queue), namespace):
        return None
    message = (
        f'either does not exist in namespace "{queue.namespace}", or does not name "{namespace}" in its '
        f"spec.allowedNamespaces: add it there, or correct {referrer}"
    )
    return Trouble(Reason.REFERENCE_NOT_GRANTED, message)


class ForeignUrls:
    """Reads URLs out of Secrets of other namespaces, once for each change of them."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._known: OrderedDict[tuple[Name, str], tuple[str, str]] = OrderedDict()
        """Secret and key -> digest and value, both as in the Secret: encoded. Those that were used last."""

    async def read(self, secret: Name, key: str, *, digest: str) -> str | None:
        """The encoded value of the key; None if it is gone. Raises ApiUnavailableError."""
        known = self._known.get((secret, key))
        if known is not None and known[0] == digest:
            self._known.move_to_end((secret, key))
            return known[1]
        body = await self._tools.cluster.get(SECRET, secret.namespace, secret.name)
        value: str | None = ((body or {}).get("data") or {}).get(key)
        if value is None:
            self._known.pop((secret, key), None)
            return None
        self._known[secret, key] = (digest, value)
        self._known.move_to_end((secret, key))
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return value
