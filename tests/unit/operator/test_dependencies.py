# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from kubeagents_api.conditions import Reason
from kubeagents_operator import dependencies
from kubeagents_operator.cache import Cache
from kubeagents_operator.dependencies import Dependencies
from kubeagents_operator.watched import CONFIG_MAP, SECRET
from tests.unit.operator.objects import NAMESPACE, agent_spec, body

TOKEN = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "model", "key": "token"}}}
TONE = {"name": "TONE", "valueFrom": {"configMapKeyRef": {"name": "tones", "key": "tone"}}}
MAYBE = {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "model", "key": "token", "optional": True}}}
ROOT_CA = {"name": "CA", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "ca.crt"}}}


@pytest.fixture
async def cache() -> Cache:
    return Cache(changed=lambda key: None)


def seen(cache: Cache, *, version: int = 1, model: dict[str, str] | None = None, **tones: str) -> None:
    if model is not None:
        cache.seen(SECRET, body("model", version=version, data=model))
    if tones:
        cache.seen(CONFIG_MAP, body("tones", version=version, data=tones))


def needs(cache: Cache, **spec: Any) -> Dependencies:
    return dependencies.look_up(cache, NAMESPACE, agent_spec(**spec))


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"env": [TOKEN]}, Reason.SECRET_NOT_FOUND, "spec.env[0].valueFrom.secretKeyRef.name"),
        ({"env": [MAYBE, TONE]}, Reason.DEPENDENCY_NOT_FOUND, "spec.env[1].valueFrom.configMapKeyRef.name"),
        ({"imagePullSecrets": [{"name": "r"}]}, Reason.SECRET_NOT_FOUND, "spec.imagePullSecrets[0].name"),
        ({"code": {"configMapRef": {"name": "c"}}}, Reason.DEPENDENCY_NOT_FOUND, "spec.code.configMapRef.name"),
    ],
)
async def test_what_is_missing_is_named_with_the_field(
    cache: Cache, spec: dict[str, Any], reason: Reason, words: str
) -> None:
    missing = needs(cache, **spec).missing

    assert missing is not None
    assert missing.reason is reason
    assert words in missing.message


async def test_a_missing_key_is_missing_too(cache: Cache) -> None:
    seen(cache, model={"other": "eA=="})
    missing = needs(cache, env=[TOKEN]).missing

    assert missing is not None
    assert 'no key "token"' in missing.message


@pytest.mark.parametrize("env", [[MAYBE], [ROOT_CA], [{"name": "A", "value": "x"}], []])
async def test_what_is_optional_or_everywhere_may_be_unknown(cache: Cache, env: list[dict[str, Any]]) -> None:
    assert needs(cache, env=env).missing is None


async def test_the_digest_is_that_of_the_values_in_use(cache: Cache) -> None:
    seen(cache, model={"token": "eA=="}, tone="kind", loudness="low")
    first = needs(cache, env=[TOKEN, TONE]).env_digest

    seen(cache, version=2, model={"token": "eA==", "new": "eQ=="}, tone="kind", loudness="high")
    assert needs(cache, env=[TOKEN, TONE]).env_digest == first
    seen(cache, version=3, tone="harsh")
    assert needs(cache, env=[TOKEN, TONE]).env_digest != first


async def test_the_arrival_of_something_optional_changes_the_digest(cache: Cache) -> None:
    before = needs(cache, env=[MAYBE]).env_digest
    seen(cache, model={"token": "eA=="})

    assert needs(cache, env=[MAYBE]).env_digest != before


async def test_pods_that_take_no_values_from_elsewhere_keep_their_digest(cache: Cache) -> None:
    assert needs(cache, env=[{"name": "A", "value": "x"}]).env_digest == ""
