# SPDX-License-Identifier: Apache-2.0
import base64
from typing import Any

from kubeagents_api.labels import CONFIG_HASH
from kubeagents_api.task_queue import ManagedRedis
from kubeagents_operator.desired.task_queue import ManagedInputs, children
from tests.unit.operator.objects import DEFAULTS, owner

WORD = "pa55-word"


def made(word: str = WORD, **redis: Any) -> dict[str, Any]:
    """The children by kind."""
    inputs = ManagedInputs(owner("TaskQueue", "work"), ManagedRedis.model_validate(redis), word)
    return {manifest["kind"]: manifest for manifest in children(inputs, DEFAULTS)}


def pod(manifests: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifests["StatefulSet"]["spec"]["template"]["spec"]
    return found


def test_the_children_of_a_queue_with_a_managed_redis() -> None:
    manifests = made()

    assert list(manifests) == ["Secret", "ServiceAccount", "Service", "StatefulSet"]
    assert {manifest["metadata"]["name"] for manifest in manifests.values()} == {"work-redis"}


def test_the_secret_has_the_password_the_url_and_the_configuration() -> None:
    texts = {key: base64.b64decode(value).decode() for key, value in made()["Secret"]["data"].items()}

    assert texts == {
        "password": WORD,
        "url": f"redis://:{WORD}@work-redis.shop.svc:6379/0",
        "redis.conf": (
            "port 6379\ndir /data\nappendonly yes\nappendfsync everysec\n"
            f'save ""\nmaxmemory-policy noeviction\nrequirepass {WORD}\n'
        ),
    }


def test_the_password_stands_in_nothing_but_the_secret() -> None:
    manifests = made()
    del manifests["Secret"]

    assert WORD not in repr(manifests)


def test_another_password_restarts_redis() -> None:
    def annotation(manifests: dict[str, Any]) -> str:
        word: str = manifests["StatefulSet"]["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH]
        return word

    assert annotation(made()) == annotation(made())
    assert annotation(made()) != annotation(made("another"))


def test_a_volume_claim_that_goes_with_the_queue_or_stays() -> None:
    spec = made(storage={"size": "1024Mi", "storageClassName": "fast", "whenDeleted": "Retain"})["StatefulSet"]["spec"]

    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert spec["volumeClaimTemplates"] == [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
                "volumeMode": "Filesystem",
                "storageClassName": "fast",
            },
            "status": {"phase": "Pending"},
        }
    ]


def test_an_empty_dir_instead() -> None:
    manifests = made(storage={"type": "EmptyDir", "size": "2Gi"})

    assert "volumeClaimTemplates" not in manifests["StatefulSet"]["spec"]
    assert "persistentVolumeClaimRetentionPolicy" not in manifests["StatefulSet"]["spec"]
    assert {"name": "data", "emptyDir": {"sizeLimit": "2Gi"}} in pod(manifests)["volumes"]


def test_redis_runs_restricted_and_is_asked_with_its_password() -> None:
    spec = pod(made())
    container = spec["containers"][0]

    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 999,
        "runAsGroup": 999,
        "fsGroup": 999,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert container["env"] == [
        {"name": "REDISCLI_AUTH", "valueFrom": {"secretKeyRef": {"name": "work-redis", "key": "password"}}}
    ]
    assert container["livenessProbe"]["exec"]["command"] == ["redis-cli", "ping"]
    assert container["readinessProbe"]["exec"]["command"] == ["sh", "-c", 'test "$(redis-cli ping)" = PONG']


def test_the_image_is_the_queues_or_the_operators() -> None:
    assert pod(made())["containers"][0]["image"] == "redis:1"
    assert pod(made(image="valkey:9"))["containers"][0]["image"] == "valkey:9"
