# SPDX-License-Identifier: Apache-2.0
"""Who is next: the lines in which queued tasks stand, in memory.

A lane is a line of standers. A task without tenant stands for itself, at its place. A tenant stands once, for the best
of its tasks: at first at that one's place, and at the end of its priority's line after each turn.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

Place = tuple[int, int]
"""9 - priority, and the order of submission."""
_Stander = tuple[str, str]
"""A tenant and "", or "" and the id of a task without tenant."""


@dataclass(slots=True)
class Lane:
    """The queued tasks that go to the same workers."""

    waiting: dict[str, tuple[str, Place]] = field(default_factory=dict)
    """Id -> tenant ("" for none) and place."""
    _by_tenant: dict[str, list[tuple[Place, str]]] = field(default_factory=dict)
    """Heaps; what is not waiting at that place any more is left in them until it comes up."""
    _positions: dict[_Stander, Place] = field(default_factory=dict)
    _line: list[tuple[Place, _Stander]] = field(default_factory=list)
    """A heap; an entry counts if it is the stander's position."""

    def add(self, task_id: str, place: Place, *, tenant: str | None) -> None:
        """Let a task wait at its place."""
        name = tenant or ""
        self.waiting[task_id] = (name, place)
        if not name:
            self._stand(("", task_id), place)
            return
        heapq.heappush(self._by_tenant.setdefault(name, []), (place, task_id))
        position = self._positions.get((name, ""))
        if position is None or place[0] < position[0]:
            self._stand((name, ""), place)

    def discard(self, task_id: str) -> None:
        """Let a task go that is not taken: the turn of its tenant is not used up."""
        tenant, _ = self.waiting.pop(task_id)
        if not tenant:
            del self._positions["", task_id]
            return
        head = self._head(tenant)
        if head is None:
            del self._positions[tenant, ""]
        elif head[0][0] != self._positions[tenant, ""][0]:
            self._stand((tenant, ""), head[0])

    def first(self, admits: Callable[[str], bool]) -> tuple[Place, str] | None:
        """The next task and the position of its stander, among the tenants that are admitted ("": none)."""
        passed: list[tuple[Place, _Stander]] = []
        found = None
        while self._line:
            position, stander = self._line[0]
            if self._positions.get(stander) != position:
                heapq.heappop(self._line)
            elif not admits(stander[0]):
                passed.append(heapq.heappop(self._line))
            else:
                tenant, task_id = stander
                head = self._head(tenant) if tenant else None
                found = (position, task_id if head is None else head[1])
                break
        for entry in passed:
            heapq.heappush(self._line, entry)
        return found

    def take(self, task_id: str, *, end_of_line: int) -> None:
        """Take a task for a worker. Its tenant goes to the end of the line, which is that order of submission."""
        tenant, _ = self.waiting[task_id]
        self.discard(task_id)
        if tenant and (head := self._head(tenant)) is not None:
            self._stand((tenant, ""), (head[0][0], end_of_line))

    def tenants(self) -> list[str]:
        """The tenants that stand in it."""
        return [tenant for tenant, _ in self._positions if tenant]

    def _head(self, tenant: str) -> tuple[Place, str] | None:
        heap = self._by_tenant.get(tenant, [])
        while heap and self.waiting.get(heap[0][1]) != (tenant, heap[0][0]):
            heapq.heappop(heap)
        if heap:
            return heap[0]
        self._by_tenant.pop(tenant, None)
        return None

    def _stand(self, stander: _Stander, position: Place) -> None:
        self._positions[stander] = position
        heapq.heappush(self._line, (position, stander))
