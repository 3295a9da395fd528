# SPDX-License-Identifier: Apache-2.0
"""The rounds there are."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from kubeagents_api.limits import QueueLimits, TenantLimits
from tests.chaos import failover, faults, order, takeover
from tests.chaos.errands import Mix
from tests.chaos.round import Result, Say, Scene, play
from tests.chaos.stage import Layout


class Play(Protocol):
    """Plays a round and judges it."""

    async def __call__(
        self, *, tasks: int, seconds: float, seed: str, folder: Path, binary: Path, say: Say, sabotage: str = ""
    ) -> Result: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of round."""

    name: str
    about: str
    play: Play


_PLAIN = Mix(nameless=0.2)
_FAILING = Mix(again=0.05, refused=0.02, doomed=0.01, nameless=0.2)
_ROUTED = Mix(again=0.02, agents=("chaos", "other"), nameless=0.2)
_MIXES = (_PLAIN, _FAILING, _ROUTED)
_TWO_AGENTS = ("chaos", "other")

SCENES = (
    Scene(
        "killed",
        "workers and producers get SIGKILL, some stop in order",
        (faults.worker_killed, faults.worker_killed_anyhow, faults.producer_killed, faults.worker_stopped),
        Layout(names=_TWO_AGENTS),
        _MIXES,
    ),
    Scene(
        "frozen",
        "workers are frozen past their lease, wake up and try to settle",
        (faults.worker_frozen, faults.worker_frozen, faults.worker_frozen_for_long, faults.worker_killed),
        Layout(names=_TWO_AGENTS),
        _MIXES,
        # Long enough that who wakes up meets another one at work.
        orders={"hold_seconds": (0.05, 0.3)},
    ),
    Scene(
        "cut",
        "connections break in both directions, in the midst of requests and replies; the network is slow, or down",
        (
            faults.connections_cut,
            faults.request_cut,
            faults.reply_cut,
            faults.reply_cut,
            faults.network_down,
            faults.network_slow,
        ),
        Layout(names=_TWO_AGENTS, proxied=True),
        _MIXES,
        every=0.25,
    ),
    Scene(
        "restarted",
        "Redis gets SIGKILL, is shut down, frozen, compacts its file, forgets its scripts",
        (
            faults.redis_killed,
            faults.redis_killed,
            faults.redis_shut_down,
            faults.redis_frozen,
            faults.file_rewritten,
            faults.scripts_flushed,
        ),
        Layout(names=_TWO_AGENTS),
        _MIXES,
    ),
    Scene(
        "agents",
        "the real agent process is killed, frozen and drained",
        (faults.agent_killed, faults.agent_drained, faults.agent_frozen),
        Layout(workers=0, agents=3),
        (_PLAIN, _FAILING),
        every=1.0,
    ),
    Scene(
        "features",
        "dependencies, delays, cancellations, replays, tenants with limits, while workers and Redis die",
        (
            faults.worker_killed,
            faults.worker_frozen,
            faults.worker_stopped,
            faults.producer_killed,
            faults.redis_killed,
        ),
        mixes=(Mix(again=0.05, refused=0.02, doomed=0.02, delayed=0.05, children=0.3, tenants=5, nameless=0.1),),
        cancels=True,
        replays=True,
        queue={"limits": QueueLimits(concurrency=800, per_tenant=TenantLimits(concurrency=150))},
    ),
    Scene(
        "shards",
        "a queue in four parts, while workers and Redis die",
        (faults.worker_killed, faults.worker_frozen, faults.worker_stopped, faults.redis_killed),
        Layout(names=_TWO_AGENTS),
        # Ids of one's own in one batch would have to fall into one shard.
        (replace(_FAILING, nameless=1.0), replace(_ROUTED, nameless=1.0)),
        queue={"shards": 4},
    ),
    Scene(
        "failover",
        "Sentinels replace a master that is killed, frozen or to be maintained; clients wait for all replicas",
        (failover.master_killed, failover.master_frozen, failover.failover_asked),
        Layout(workers=3, replicated=True),
        (_PLAIN, _FAILING),
        # Who is told that a lease is lost may be told so by a master whose last moments do not count.
        orders={"lingers": False},
    ),
    Scene(
        "everything",
        "all of it at once",
        (
            faults.worker_killed,
            faults.worker_frozen,
            faults.worker_stopped,
            faults.producer_killed,
            faults.connections_cut,
            faults.request_cut,
            faults.reply_cut,
            faults.network_slow,
            faults.redis_killed,
            faults.scripts_flushed,
        ),
        Layout(workers=5, names=_TWO_AGENTS, proxied=True),
        _MIXES,
    ),
)

PARTS = (
    *(Part(scene.name, scene.about, partial(play, scene)) for scene in SCENES),
    Part(order.NAME, order.ABOUT, order.play),
    Part(takeover.NAME, takeover.ABOUT, takeover.play),
)


def programme(seed: str, parts: Sequence[Part]) -> Iterator[Part]:
    """Which rounds are played, without end: all parts in an order of chance, and again in another one."""
    dice = random.Random(f"{seed}/programme")
    while True:
        yield from dice.sample(parts, len(parts))
