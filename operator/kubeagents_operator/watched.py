# SPDX-License-Identifier: Apache-2.0
"""What the operator watches, in one table. The chart's RBAC rules (`rbac`) follow from it."""

from dataclasses import dataclass

from kubeagents_api.kinds import KINDS
from kubeagents_api.labels import GROUP, MANAGED_BY, MANAGED_BY_VALUE, VERSION

OURS = f"{MANAGED_BY}={MANAGED_BY_VALUE}"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, and which of its objects the API server sends us."""

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    label_selector: str | None = OURS
    field_selector: str | None = None

    @property
    def api_version(self) -> str:
        """For example `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The path on the API server of all objects (of a namespace), or of one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if namespace is not None else ""
        return f"{root}{where}/{self.plural}" + (f"/{name}" if name is not None else "")


CUSTOM = tuple(Resource(kind.kind, kind.plural, GROUP, VERSION, label_selector=None) for kind in KINDS)

UNWATCHED_CONFIG_MAP = "kube-root-ca.crt"
"""Each namespace has one, with the same content: it is taken for granted."""

# Users refer to ConfigMaps and Secrets of their own, which have no label of ours, so all are watched; only a digest
# of each is kept. Those that nobody refers to and that are many or large, the API server does not send.
CONFIG_MAP = Resource(
    "ConfigMap", "configmaps", label_selector=None, field_selector=f"metadata.name!={UNWATCHED_CONFIG_MAP}"
)
SECRET = Resource("Secret", "secrets", label_selector=None, field_selector="type!=helm.sh/release.v1")

DEPLOYMENT = Resource("Deployment", "deployments", "apps")
STATEFUL_SET = Resource("StatefulSet", "statefulsets", "apps")
SERVICE = Resource("Service", "services")
SERVICE_ACCOUNT = Resource("ServiceAccount", "serviceaccounts")
ROLE = Resource("Role", "roles", "rbac.authorization.k8s.io")
ROLE_BINDING = Resource("RoleBinding", "rolebindings", "rbac.authorization.k8s.io")
LEASE = Resource("Lease", "leases", "coordination.k8s.io")
POD_DISRUPTION_BUDGET = Resource("PodDisruptionBudget", "poddisruptionbudgets", "policy")
POD = Resource("Pod", "pods")

CHILDREN = (
    CONFIG_MAP,
    SECRET,
    DEPLOYMENT,
    STATEFUL_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    LEASE,
    POD_DISRUPTION_BUDGET,
)
"""What the operator creates and owns."""
WATCHED = (*CUSTOM, *CHILDREN, POD)
BY_KIND = {resource.kind: resource for resource in WATCHED}
