# SPDX-License-Identifier: Apache-2.0
import pytest

from agent_runtime.security import Caller, Rates
from kubeagents_api.access import RequestLimit
from kubeagents_api.errors import RateLimitedError


def limited(name: str = "ci", *, requests: int = 4) -> Caller:
    return Caller(name, "developer", rate_limit=RequestLimit(requests=requests, per_seconds=2.0))


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock: Clock) -> Rates:
    return Rates(clock=clock)


def calls(rates: Rates, caller: Caller) -> int:
    """How many go through before one is refused."""
    count = 0
    while True:
        try:
            rates.take(caller)
        except RateLimitedError:
            return count
        count += 1


def test_a_principal_makes_as_many_calls_as_it_may(rates: Rates, clock: Clock) -> None:
    assert calls(rates, limited()) == 4
    with pytest.raises(RateLimitedError, match="ci may make 4 calls in 2 s") as refused:
        rates.take(limited())
    assert refused.value.delay == pytest.approx(0.5)
    clock.seconds = 1.0
    assert calls(rates, limited()) == 2
    clock.seconds = 1000.0
    assert calls(rates, limited()) == 4


def test_one_principal_does_not_use_up_what_another_may(rates: Rates) -> None:
    assert calls(rates, limited("ci")) == 4
    assert calls(rates, limited("maria")) == 4


def test_without_a_limit_there_is_none(rates: Rates) -> None:
    for _ in range(10_000):
        rates.take(Caller("ci", "admin"))


def test_pods_share_what_a_principal_may(rates: Rates, clock: Clock) -> None:
    rates.share(2)
    assert calls(rates, limited()) == 2
    rates.share(100)
    clock.seconds = 100.0
    assert calls(rates, limited()) == 1, "never none at all"
