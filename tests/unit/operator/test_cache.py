# SPDX-License-Identifier: Apache-2.0
import pytest

from kubeagents_api.labels import APPLIED, RESTARTED_AT
from kubeagents_operator.cache import Cache
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.watched import BY_KIND
from tests.unit.operator.objects import NAMESPACE, body, child_labels

AGENT, QUEUE, DEPLOYMENT, POD = BY_KIND["Agent"], BY_KIND["TaskQueue"], BY_KIND["Deployment"], BY_KIND["Pod"]
SECRET, CONFIG_MAP, LEASE = BY_KIND["Secret"], BY_KIND["ConfigMap"], BY_KIND["Lease"]
ECHO = Key("Agent", NAMESPACE, "echo")
WORK = Key("TaskQueue", NAMESPACE, "work")
AGENT_SPEC = {"queueRef": {"name": "work"}, "handler": "echo:handle", "code": {"configMapRef": {"name": "code"}}}
OF_ECHO = child_labels("Agent", "echo")


@pytest.fixture
def changed() -> list[Key]:
    return []


@pytest.fixture
async def cache(changed: list[Key]) -> Cache:
    return Cache(changed.append)


async def test_a_new_object_is_a_reason_to_reconcile_it(cache: Cache, changed: list[Key]) -> None:
    cache.seen(AGENT, body("echo", spec=AGENT_SPEC))

    assert changed == [ECHO]
    assert cache.customs() == [ECHO]


async def test_the_same_version_again_is_no_reason(cache: Cache, changed: list[Key]) -> None:
    cache.seen(AGENT, body("echo", version=5, spec=AGENT_SPEC))
    changed.clear()

    cache.seen(AGENT, body("echo", version=5, spec=AGENT_SPEC))
    cache.seen(AGENT, body("echo", version=6, spec=AGENT_SPEC))

    assert changed == []


async def test_only_what_people_change_is_something_that_they_ask_for(changed: list[Key]) -> None:
    asked: list[Key] = []
    cache = Cache(changed.append, asked=asked.append)

    def show(version: int, *, generation: int, restarted: str = "", status: dict[str, int] | None = None) -> None:
        metadata = {"generation": generation, "annotations": {RESTARTED_AT: restarted}}
        cache.seen(AGENT, body("echo", version=version, metadata=metadata, spec=AGENT_SPEC, status=status or {}))

    show(1, generation=1)
    show(2, generation=2)
    show(3, generation=2, restarted="now")
    assert (asked, changed) == ([ECHO, ECHO, ECHO], [])

    show(4, generation=2, restarted="now", status={"observedGeneration": 2})
    cache.seen(DEPLOYMENT, body("echo-agent", version=5, labels=OF_ECHO))

    assert (len(asked), changed) == (3, [ECHO, ECHO])


async def test_a_status_that_is_being_written_is_no_reason_to_look_again(cache: Cache, changed: list[Key]) -> None:
    cache.seen(AGENT, body("echo", version=1, spec=AGENT_SPEC, status={"known": True}))
    changed.clear()

    with cache.expecting(ECHO, {"replicas": 1, "rollout": None}):
        cache.seen(AGENT, body("echo", version=2, spec=AGENT_SPEC, status={"known": True, "replicas": 1}))
        assert changed == []
        cache.seen(AGENT, body("echo", version=3, spec=AGENT_SPEC, status={"replicas": 2}))
        assert changed == [ECHO], "somebody else has written another one"
        cache.seen(AGENT, body("echo", version=4, spec={**AGENT_SPEC, "replicas": 7}, status={"replicas": 1}))
        assert changed == [ECHO, ECHO], "a change of the spec, that comes with it"
    cache.seen(AGENT, body("echo", version=5, spec={**AGENT_SPEC, "replicas": 7}, status={}))

    assert changed == [ECHO, ECHO, ECHO], "somebody has taken it away"


async def test_a_child_that_is_being_written_is_no_reason_to_look_again(cache: Cache, changed: list[Key]) -> None:
    def show(version: int, applied: str, *, ready: int = 0) -> None:
        metadata = {"annotations": {APPLIED: applied}}
        status = {"readyReplicas": ready}
        cache.seen(DEPLOYMENT, body("echo-agent", version=version, labels=OF_ECHO, metadata=metadata, status=status))

    with cache.expecting_child(ECHO, "Deployment", "echo-agent", "first"):
        show(1, "first")
        assert changed == []
        show(2, "first", ready=1)
        assert changed == [ECHO], "what becomes of it, even before the answer to the write"
    with cache.expecting_child(ECHO, "Deployment", "echo-agent", "second"):
        show(3, "third")
        assert changed == [ECHO, ECHO], "somebody else has written something else"
        show(4, "second")
        assert changed == [ECHO, ECHO]
    show(5, "first")
    assert changed == [ECHO, ECHO, ECHO]


async def test_that_a_deployment_has_arrived_does_not_wait_for_more() -> None:
    changed: list[Key] = []
    stirred: list[Key] = []
    cache = Cache(changed.append, stirred=stirred.append)

    def show(version: int, *, pods: int, ready: int) -> None:
        status = {"observedGeneration": 1, "replicas": pods, "updatedReplicas": pods, "availableReplicas": ready}
        spec = {"replicas": 2}
        cache.seen(DEPLOYMENT, body("echo-agent", version=version, labels=OF_ECHO, spec=spec, status=status))

    show(1, pods=3, ready=3)
    show(2, pods=2, ready=1)
    assert (changed, stirred) == ([], [ECHO, ECHO])
    show(3, pods=2, ready=2)
    assert (changed, stirred) == ([ECHO], [ECHO, ECHO])


async def test_an_older_version_never_replaces_a_newer_one(cache: Cache) -> None:
    cache.seen(AGENT, body("echo", version=10, spec={"replicas": 2}))
    cache.seen(AGENT, body("echo", version=9, spec={"replicas": 1}))

    custom = cache.custom(ECHO)
    assert custom is not None
    assert custom.spec == {"replicas": 2}


async def test_a_list_forgets_what_it_does_not_show(cache: Cache, changed: list[Key]) -> None:
    cache.seen(DEPLOYMENT, body("echo-agent", version=3, labels=OF_ECHO))
    cache.seen(DEPLOYMENT, body("late-agent", version=9, labels=OF_ECHO))
    changed.clear()

    cache.keep_only(DEPLOYMENT, None, set(), version=8)

    assert set(cache.children(ECHO)) == {("Deployment", "late-agent")}  # written after the LIST was made
    assert changed == [ECHO]


async def test_a_list_of_one_namespace_says_nothing_about_another(cache: Cache) -> None:
    cache.seen(DEPLOYMENT, body("echo-agent", version=3, labels=OF_ECHO))

    cache.keep_only(DEPLOYMENT, "elsewhere", set(), version=8)

    assert set(cache.children(ECHO)) == {("Deployment", "echo-agent")}


async def test_a_late_answer_does_not_revive_what_is_deleted(cache: Cache) -> None:
    cache.seen(DEPLOYMENT, body("echo-agent", version=3, labels=OF_ECHO))
    cache.deleted(DEPLOYMENT, body("echo-agent", version=7, labels=OF_ECHO))

    cache.seen(DEPLOYMENT, body("echo-agent", version=5, labels=OF_ECHO))

    assert not cache.children(ECHO)


async def test_a_late_answer_does_not_revive_what_a_list_has_not_shown(cache: Cache) -> None:
    cache.seen(DEPLOYMENT, body("echo-agent", version=3, labels=OF_ECHO))
    cache.keep_only(DEPLOYMENT, None, set(), version=8)

    cache.seen(DEPLOYMENT, body("echo-agent", version=5, labels=OF_ECHO))

    assert not cache.children(ECHO)


async def test_the_answer_that_gave_a_label_back_may_come_before_the_event_of_its_loss(cache: Cache) -> None:
    cache.seen(DEPLOYMENT, body("echo-agent", version=8, labels=OF_ECHO))

    cache.deleted(DEPLOYMENT, body("echo-agent", version=7))

    assert set(cache.children(ECHO)) == {("Deployment", "echo-agent")}


async def test_an_object_that_gets_its_label_back_is_seen_again(cache: Cache) -> None:
    cache.seen(DEPLOYMENT, body("echo-agent", version=3, labels=OF_ECHO))
    cache.deleted(DEPLOYMENT, body("echo-agent", version=7))  # how a watch by label shows a lost label

    cache.seen(DEPLOYMENT, body("echo-agent", version=8, labels=OF_ECHO))

    assert set(cache.children(ECHO)) == {("Deployment", "echo-agent")}


async def test_the_end_of_an_earlier_object_of_the_same_name_is_not_the_end_of_this_one(cache: Cache) -> None:
    cache.seen(DEPLOYMENT, body("echo-agent", uid="new", version=9, labels=OF_ECHO))

    cache.deleted(DEPLOYMENT, body("echo-agent", uid="old", version=8, labels=OF_ECHO))

    assert set(cache.children(ECHO)) == {("Deployment", "echo-agent")}


async def test_a_child_that_loses_its_owner_label_is_taken_from_its_owner(cache: Cache, changed: list[Key]) -> None:
    cache.seen(CONFIG_MAP, body("echo-agent", version=1, labels=OF_ECHO))
    changed.clear()

    cache.seen(CONFIG_MAP, body("echo-agent", version=2))

    assert not cache.children(ECHO)
    assert changed == [ECHO]


async def test_the_arrival_of_what_is_referred_to_concerns_who_refers_to_it(cache: Cache, changed: list[Key]) -> None:
    cache.seen(AGENT, body("echo", spec=AGENT_SPEC))
    changed.clear()

    cache.seen(QUEUE, body("work", spec={}))
    assert set(changed) == {WORK, ECHO}
    changed.clear()

    cache.seen(CONFIG_MAP, body("code", data={"echo.py": "1"}))
    assert changed == [ECHO]


async def test_an_agent_that_comes_changes_or_goes_concerns_its_queue(cache: Cache, changed: list[Key]) -> None:
    cache.seen(QUEUE, body("work", spec={}))
    changed.clear()

    cache.seen(AGENT, body("echo", version=1, spec=AGENT_SPEC))
    assert set(changed) == {WORK, ECHO}
    changed.clear()

    cache.seen(AGENT, body("echo", version=2, spec={**AGENT_SPEC, "capabilities": ["ocr"]}))
    assert set(changed) == {WORK, ECHO}
    changed.clear()

    cache.deleted(AGENT, body("echo", version=3, spec=AGENT_SPEC))
    assert set(changed) == {WORK, ECHO}


async def test_an_agent_that_changes_its_queue_concerns_both(cache: Cache, changed: list[Key]) -> None:
    cache.seen(QUEUE, body("work", spec={}))
    cache.seen(QUEUE, body("other", spec={}))
    cache.seen(AGENT, body("echo", version=1, spec=AGENT_SPEC))
    changed.clear()

    cache.seen(AGENT, body("echo", version=2, spec={"queueRef": {"name": "other"}}))

    assert set(changed) == {WORK, Key("TaskQueue", NAMESPACE, "other"), ECHO}


async def test_the_status_of_an_agent_does_not_concern_its_queue(cache: Cache, changed: list[Key]) -> None:
    cache.seen(QUEUE, body("work", spec={}))
    cache.seen(AGENT, body("echo", version=1, spec=AGENT_SPEC))
    changed.clear()

    cache.seen(AGENT, body("echo", version=2, spec=AGENT_SPEC, status={"replicas": 3}))

    assert changed == [ECHO]


async def test_a_queues_secret_concerns_the_queue_and_its_agents(cache: Cache, changed: list[Key]) -> None:
    cache.seen(AGENT, body("echo", spec=AGENT_SPEC))
    cache.seen(QUEUE, body("work", spec={"redis": {"external": {"secretRef": {"name": "there"}}}}))
    changed.clear()

    cache.seen(SECRET, body("there", version=1, data={"url": "cmVkaXM6Ly94"}))
    assert set(changed) == {WORK, ECHO}
    changed.clear()

    cache.seen(SECRET, body("there", version=2, data={"url": "cmVkaXM6Ly94"}, metadata={"annotations": {"a": "b"}}))
    assert changed == []  # its content is the same


async def test_a_spec_that_refers_to_something_else_drops_the_old_reference(cache: Cache) -> None:
    cache.seen(AGENT, body("echo", version=1, spec=AGENT_SPEC))
    cache.seen(AGENT, body("echo", version=2, spec={"queueRef": {"name": "other"}}))

    assert cache.users("TaskQueue", Name(NAMESPACE, "work")) == frozenset()
    assert cache.users("ConfigMap", Name(NAMESPACE, "code")) == frozenset()
    assert cache.users("TaskQueue", Name(NAMESPACE, "other")) == {ECHO}


@pytest.mark.parametrize("spec", [{}, {"queueRef": "work"}, {"queueRef": {"name": 5}}, {"queueRef": None}])
async def test_a_malformed_spec_refers_to_nothing(cache: Cache, spec: dict[str, object]) -> None:
    cache.seen(AGENT, body("echo", spec=spec))

    assert cache.customs() == [ECHO]


async def test_of_a_secret_only_digests_are_kept(cache: Cache) -> None:
    cache.seen(SECRET, body("there", data={"url": "c2VjcmV0"}))

    kept = cache.digest("Secret", Name(NAMESPACE, "there"))
    assert kept is not None
    assert set(kept.keys) == {"url"}
    assert "c2VjcmV0" not in repr(kept)


async def test_a_renewed_lease_is_no_reason_a_new_holder_is(cache: Cache, changed: list[Key]) -> None:
    labels = child_labels("CentralAgent", "hub")

    def lease(version: int, holder: str, transitions: int) -> dict[str, object]:
        spec = {"holderIdentity": holder, "leaseTransitions": transitions, "leaseDurationSeconds": 15}
        return body("hub-leader", version=version, labels=labels, spec=spec)

    cache.seen(LEASE, lease(1, "hub-1", 1))
    cache.seen(LEASE, lease(2, "hub-1", 1))
    changed.clear()

    cache.seen(LEASE, lease(3, "hub-1", 1))
    assert changed == []

    cache.seen(LEASE, lease(4, "hub-2", 2))
    assert changed == [Key("CentralAgent", NAMESPACE, "hub")]


async def test_a_pod_counts_for_its_owner_until_it_is_gone(cache: Cache, changed: list[Key]) -> None:
    cache.seen(POD, body("echo-1", version=1, labels=OF_ECHO, status={"conditions": []}))
    ready = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    cache.seen(POD, body("echo-1", version=2, labels=OF_ECHO, status=ready))
    assert [pod.ready for pod in cache.pods(ECHO)] == [True]
    assert changed == [ECHO, ECHO]

    cache.deleted(POD, body("echo-1", version=3, labels=OF_ECHO))
    assert cache.pods(ECHO) == []


async def test_a_deleted_object_is_a_reason_for_itself_and_for_who_refers_to_it(
    cache: Cache, changed: list[Key]
) -> None:
    cache.seen(AGENT, body("echo", spec=AGENT_SPEC))
    cache.seen(QUEUE, body("work", version=1, spec={}))
    changed.clear()

    cache.deleted(QUEUE, body("work", version=2, spec={}))

    assert set(changed) == {WORK, ECHO}
    assert cache.custom(WORK) is None
