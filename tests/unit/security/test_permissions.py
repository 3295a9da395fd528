# SPDX-License-Identifier: Apache-2.0
import pytest

from agent_runtime.security.caller import Caller
from agent_runtime.security.permissions import Verb, reach, require, require_agents
from kubeagents_api.access import Grant, Role
from kubeagents_api.errors import ForbiddenError


def caller(role: Role, *, queues: set[str] | None = None, agents: set[str] | None = None) -> Caller:
    def frozen(names: set[str] | None) -> frozenset[str] | None:
        return frozenset(names) if names is not None else None

    return Caller("maria", role, frozen(queues), frozen(agents))


@pytest.mark.parametrize(
    ("role", "verbs"),
    [
        ("admin", set(Verb)),
        ("developer", {Verb.READ, Verb.SUBMIT, Verb.CANCEL}),
        ("viewer", {Verb.READ}),
        ("agent", {Verb.READ, Verb.SUBMIT, Verb.CANCEL, Verb.WORK}),
    ],
)
def test_a_role_may_do_what_is_its_and_nothing_else(role: Role, verbs: set[Verb]) -> None:
    may = set()
    for verb in Verb:
        try:
            require(caller(role), verb, queue="orders")
        except ForbiddenError:
            continue
        may.add(verb)

    assert may == verbs


def test_what_is_refused_is_said_with_who_may() -> None:
    with pytest.raises(
        ForbiddenError, match="maria has the role viewer, which may not submit: that needs admin, agent"
    ):
        require(caller("viewer"), Verb.SUBMIT, queue="orders")


def test_a_role_holds_for_its_queues_only() -> None:
    require(caller("admin", queues={"orders"}), Verb.OPERATE, queue="orders")
    with pytest.raises(ForbiddenError, match="may not use the queue 'bills', only orders"):
        require(caller("admin", queues={"orders"}), Verb.OPERATE, queue="bills")


@pytest.mark.parametrize("part", [{"queues": {"orders"}}, {"agents": {"billing"}}])
def test_an_admin_of_a_part_makes_no_keys(part: dict[str, set[str]]) -> None:
    with pytest.raises(ForbiddenError, match="no admin of all"):
        require(caller("admin", **part), Verb.ADMINISTER)


def test_who_may_use_some_agents_has_to_name_one() -> None:
    some = caller("developer", agents={"billing"})
    require_agents(some, {"billing"})
    with pytest.raises(ForbiddenError, match="not use tasks of Agent 'mail', only of billing"):
        require_agents(some, {"billing", "mail"})
    with pytest.raises(ForbiddenError, match="name an agent"):
        require_agents(some, {None})
    require_agents(caller("developer"), {None, "mail"})


def test_an_agent_works_for_its_own_and_calls_any() -> None:
    outside = caller("agent", agents={"billing"})
    require_agents(outside, {"billing"})
    with pytest.raises(ForbiddenError, match="not use tasks of Agent 'mail', only of billing"):
        require_agents(outside, {"mail"})
    assert reach(outside) is None
    assert reach(caller("developer", agents={"billing"})) == frozenset({"billing"})


def test_an_agent_says_for_whom_it_works() -> None:
    with pytest.raises(ValueError, match="role agent needs agents: name the Agents"):
        Grant(role="agent")
