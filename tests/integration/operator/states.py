# SPDX-License-Identifier: Apache-2.0
"""What these tests ask of a status again and again."""

from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually


def condition(cluster: Cluster, namespace: str, target: str, wanted: str) -> Object:
    """A condition of `kind/name`; empty while there is none."""
    kind, _, name = target.partition("/")
    status = cluster.get(namespace, kind, name).get("status", {})
    return next((one for one in status.get("conditions", ()) if one["type"] == wanted), {})


def wait_for(
    cluster: Cluster, namespace: str, target: str, wanted: str, *, status: str, reason: str = "", seconds: float = 60
) -> Object:
    """Wait until a condition has the status, and the reason if one is given; the condition."""

    def there() -> Object:
        found = condition(cluster, namespace, target, wanted)
        assert found.get("status") == status, found or "no such condition"
        assert reason in ("", found["reason"]), found
        return found

    return eventually(there, what=f"{wanted} of {target} is {status} {reason}", timeout=seconds)


def events(cluster: Cluster, namespace: str, name: str) -> list[tuple[str, str]]:
    """Reason and text of the Events about an object."""
    found = cluster.objects(namespace, "events.events.k8s.io")
    return [(one["reason"], one["note"]) for one in found if one["regarding"]["name"] == name]
