# SPDX-License-Identifier: Apache-2.0
"""What tasks are there for: each carries in its payload how its attempts will go, chosen by the round's dice."""

import random
from dataclasses import dataclass, replace
from typing import Any

from kubeagents_api.task import TaskRequest

MOODS = ("fine", "again", "refused", "doomed")
"""How the attempts of a task go. `fine`: succeed. `again`: fail at first, then succeed. `refused`: fail for good.
`doomed`: always fail, until its attempts are used up; but succeed once the round has cured them, to be replayed."""


@dataclass(frozen=True, slots=True)
class Errand:
    """One task, as a producer means it."""

    id: str | None
    """None: the queue makes one up."""
    priority: int = 5
    mood: str = "fine"
    failures: int = 0
    """How many attempts fail before one succeeds, for `again`."""
    max_attempts: int = 20
    delay: float = 0.0
    """Seconds before the first attempt."""
    parents: tuple[str, ...] = ()
    on_parent_failure: str = "Fail"
    tenant: str | None = None
    agent: str | None = None

    def request(self) -> TaskRequest:
        """As it is submitted. About 100 bytes of payload."""
        fields: dict[str, Any] = {"priority": self.priority, "max_attempts": self.max_attempts}
        if self.delay:
            fields["delay_seconds"] = self.delay
        if self.parents:
            fields |= {"depends_on": list(self.parents), "on_parent_failure": self.on_parent_failure}
        if self.tenant is not None:
            fields["tenant"] = self.tenant
        if self.agent is not None:
            fields["agent"] = self.agent
        payload = {"mood": self.mood, "failures": self.failures, "filling": "x" * 60}
        return TaskRequest(id=self.id, type="chaos", payload=payload, **fields)

    def to_wire(self) -> list[Any]:
        """For the journal; what follows the last field that is not as usual is left out."""
        fields = [
            self.id, self.priority, self.mood, self.failures, self.max_attempts, self.delay, self.parents,
            self.on_parent_failure, self.tenant, self.agent,
        ]  # fmt: skip
        while len(fields) > 1 and fields[-1] == _USUAL[len(fields) - 1]:
            fields.pop()
        return fields

    @classmethod
    def from_wire(cls, fields: list[Any]) -> "Errand":
        """The other way."""
        errand = cls(*fields)
        return replace(errand, parents=tuple(errand.parents)) if errand.parents else errand


_USUAL = (None, 5, "fine", 0, 20, 0.0, (), "Fail", None, None)


@dataclass(frozen=True, slots=True)
class Mix:
    """Which kinds of errands a round has, each as the part of all tasks that it concerns."""

    again: float = 0.0
    refused: float = 0.0
    doomed: float = 0.0
    delayed: float = 0.0
    children: float = 0.0
    """Depend on tasks of their own batch or of the one before."""
    tenants: int = 0
    """Among how many tenants half of the tasks are shared out."""
    agents: tuple[str, ...] = ()
    """Half of the tasks name one of them."""
    nameless: float = 0.0
    """The part of the batches whose ids the queue makes up."""


class Errands:
    """The errands of one producer. Batch n is the same whenever it is asked for, so that it can be repeated."""

    def __init__(self, *, seed: str, producer: str, mix: Mix, size: int) -> None:
        self._seed = seed
        self._producer = producer
        self._mix = mix
        self._size = size

    def batch(self, number: int) -> list[Errand]:
        """The errands of a batch, in order."""
        dice = random.Random(f"{self._seed}/{self._producer}/{number}")
        named = not self._nameless(number)
        names = [self._id(number, index) if named else None for index in range(self._size)]
        before = [self._id(number - 1, index) for index in range(self._size)]
        known = before if number and not self._nameless(number - 1) else []
        return [
            self._errand(dice, name, parents=[*known, *(each for each in names[:index] if each is not None)])
            for index, name in enumerate(names)
        ]

    def _nameless(self, number: int) -> bool:
        return random.Random(f"{self._seed}/{self._producer}/{number}/nameless").random() < self._mix.nameless

    def _id(self, number: int, index: int) -> str:
        return f"{self._producer}-{number}-{index}"

    def _errand(self, dice: random.Random, name: str | None, *, parents: list[str]) -> Errand:
        mix = self._mix
        errand = Errand(
            id=name,
            priority=dice.randrange(10),
            delay=round(dice.uniform(0.05, 1.5), 3) if dice.random() < mix.delayed else 0.0,
            tenant=f"tenant-{dice.randrange(mix.tenants)}" if mix.tenants and dice.random() < 0.5 else None,
            agent=dice.choice(mix.agents) if mix.agents and dice.random() < 0.5 else None,
        )
        mood = dice.random()
        if mood < mix.again:
            errand = replace(errand, mood="again", failures=dice.choice((1, 1, 1, 2, 3)))
        elif mood < mix.again + mix.refused:
            errand = replace(errand, mood="refused")
        elif mood < mix.again + mix.refused + mix.doomed:
            errand = replace(errand, mood="doomed", max_attempts=dice.choice((1, 2, 3)))
        if parents and dice.random() < mix.children:
            chosen = {dice.choice(parents) for _ in range(dice.choice((1, 1, 2, 3)))}
            choice = dice.choice(("Fail", "Skip", "Run"))
            errand = replace(errand, parents=tuple(sorted(chosen)), on_parent_failure=choice)
        return errand
