# SPDX-License-Identifier: Apache-2.0
"""When the manifests of children need not be made, as nothing has changed. Writes are shown on a control plane."""

from collections.abc import Hashable
from typing import Any, cast

import pytest

from kubeagents_operator import observed
from kubeagents_operator.cache import Cache
from kubeagents_operator.children import Changes, Children
from kubeagents_operator.cluster import Cluster, ObjectRefusedError
from kubeagents_operator.desired import runtime
from kubeagents_operator.observed import Custom
from kubeagents_operator.watched import BY_KIND
from tests.unit.operator import objects

ECHO = observed.custom("Agent", objects.body("echo", uid="uid-1"))
OWNER = objects.owner()
ACCOUNT = runtime.service_account(OWNER, "echo-agent")
SERVICE = runtime.service(OWNER, "echo-agent", port=8080)
BASIS = ("spec", 1)


class Accepting:
    """Stands for a cluster that stores what it is given."""

    def __init__(self) -> None:
        self.written = 0
        self.refuses = False

    async def create(self, manifest: objects.Body) -> objects.Body:
        if self.refuses:
            raise ObjectRefusedError("exceeded quota")
        self.written += 1
        return objects.applied(manifest, version=self.written, uid=f"uid-{manifest['kind']}")


@pytest.fixture
def cluster() -> Accepting:
    return Accepting()


@pytest.fixture
async def cache() -> Cache:
    return Cache(lambda _key: None)


@pytest.fixture
async def children(cluster: Accepting, cache: Cache) -> Children:
    return Children(cast("Cluster", cluster), cache)


async def bring(children: Children, *, owner: Custom = ECHO, basis: Hashable = BASIS) -> None:
    await children.bring(owner, [ACCOUNT, SERVICE], Changes(), basis=basis)


def live(cache: Cache, manifest: objects.Body, **metadata: Any) -> None:
    body = objects.applied(manifest, version=9, uid=f"uid-{manifest['kind']}")
    cache.seen(BY_KIND[manifest["kind"]], {**body, "metadata": {**body["metadata"], **metadata}})


async def test_children_stand_for_what_they_were_brought_from(children: Children) -> None:
    assert not children.stand(ECHO, BASIS)
    await bring(children)

    assert children.stand(ECHO, BASIS)
    assert not children.stand(ECHO, ("spec", 2))
    assert not children.stand(observed.custom("Agent", objects.body("echo", uid="uid-2")), BASIS)
    children.forget(ECHO.key)
    assert not children.stand(ECHO, BASIS)


async def test_manifests_without_a_basis_are_made_each_time(children: Children) -> None:
    await bring(children)
    await bring(children, basis=None)

    assert not children.stand(ECHO, BASIS)


@pytest.mark.parametrize(
    "metadata",
    [{"managedFields": []}, {"annotations": {}}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"labels": {}}],
    ids=["taken over", "digest", "deleted", "label"],
)
async def test_children_that_somebody_has_changed_do_not_stand(
    children: Children, cache: Cache, metadata: dict[str, Any]
) -> None:
    await bring(children)

    live(cache, SERVICE, **metadata)

    assert not children.stand(ECHO, BASIS)


async def test_a_child_that_came_or_went_is_looked_at(children: Children, cache: Cache) -> None:
    await bring(children)
    live(cache, runtime.service(OWNER, "echo-other", port=8080))
    assert not children.stand(ECHO, BASIS)

    cache.deleted(BY_KIND["Service"], objects.applied(SERVICE, version=20, uid="uid-Service"))
    assert not children.stand(ECHO, BASIS)


async def test_children_that_were_refused_do_not_stand(children: Children, cluster: Accepting, cache: Cache) -> None:
    await bring(children)
    cache.deleted(BY_KIND["Service"], objects.applied(SERVICE, version=20, uid="uid-Service"))
    cluster.refuses = True
    with pytest.raises(ObjectRefusedError):
        await bring(children)

    live(cache, SERVICE)

    assert not children.stand(ECHO, BASIS)
