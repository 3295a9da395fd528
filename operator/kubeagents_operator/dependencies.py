# SPDX-License-Identifier: Apache-2.0
"""The Secrets and ConfigMaps of users that pods need: whether they are there, and a digest of what is taken from them.

The kubelet reads the values when it starts a container, never again, and of what is missing it speaks after a while and
in each pod. The operator has a digest of every key in memory, so it knows first:

- While something is missing, the children stay as they are: pods that run go on, and none is started in vain. The
  arrival of it is a watch event.
- The digest of the values in use goes into the pod template, so a change of one of them replaces the pods. A change of
  a key that nobody uses does not.
- What is `optional` may be missing; its arrival replaces the pods.
- Keys and certificates are mounted, and read while the pods run: they must be there, and their changes replace nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kubeagents_api.access import key_secrets
from kubeagents_api.agent import AgentSpec
from kubeagents_api.central_agent import CentralAgentSpec
from kubeagents_api.conditions import Reason
from kubeagents_api.pod import PodSettings
from kubeagents_operator.cache import Cache
from kubeagents_operator.fingerprint import digest
from kubeagents_operator.keys import Name
from kubeagents_operator.status.conditions import Verdict, progressing
from kubeagents_operator.watched import UNWATCHED_CONFIG_MAP


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the pods of one object need."""

    missing: Verdict | None
    """What keeps them from starting."""
    env_digest: str = ""
    """Changes with the values of `env`; empty if none is taken from elsewhere."""
    code_digest: str = ""
    """Changes with the files of `code`."""


@dataclass(frozen=True, slots=True)
class _Use:
    kind: str
    name: str
    key: str | None
    """None: the whole object."""
    field: str
    optional: bool = False
    live: bool = False
    """The pods see its changes themselves."""


def look_up(cache: Cache, namespace: str, settings: PodSettings) -> Dependencies:
    """What the pods need, as it is now."""
    parts: list[str] = []
    for use in (*_of_env(settings), *_of_pod(settings)):
        found = cache.digest(use.kind, Name(namespace, use.name))
        there = found is not None and (use.key is None or use.key in found.keys)
        known = (use.kind, use.name) != ("ConfigMap", UNWATCHED_CONFIG_MAP)
        if not there and known and not use.optional:
            return Dependencies(_missing(use, exists=found is not None))
        if use.key is not None and not use.live:
            parts += [use.kind, use.name, use.key, found.keys.get(use.key, "") if found is not None else ""]
    code = settings.code if isinstance(settings, AgentSpec) else None
    files = cache.digest("ConfigMap", Name(namespace, code.config_map_ref.name)) if code is not None else None
    return Dependencies(
        None,
        env_digest=digest(parts) if parts else "",
        code_digest=files.digest() if files is not None else "",
    )


def _of_env(settings: PodSettings) -> Iterator[_Use]:
    for index, variable in enumerate(settings.env):
        if variable.value_from is None:
            continue
        for kind, field, ref in (
            ("Secret", "secretKeyRef", variable.value_from.secret_key_ref),
            ("ConfigMap", "configMapKeyRef", variable.value_from.config_map_key_ref),
        ):
            if ref is not None:
                where = f"spec.env[{index}].valueFrom.{field}"
                yield _Use(kind, ref.name, ref.key, where, optional=bool(ref.optional))


def _of_pod(settings: PodSettings) -> Iterator[_Use]:
    for index, ref in enumerate(settings.image_pull_secrets):
        yield _Use("Secret", ref.name, None, f"spec.imagePullSecrets[{index}]")
    if isinstance(settings, AgentSpec | CentralAgentSpec):
        for principal, secret in key_secrets(settings.access).items():
            yield _Use("Secret", secret, None, f'spec.access.principals[name="{principal}"].keysFrom')
        yield from _of_tls(settings)
    if isinstance(settings, AgentSpec) and settings.code is not None:
        yield _Use("ConfigMap", settings.code.config_map_ref.name, None, "spec.code.configMapRef")


def _of_tls(spec: AgentSpec | CentralAgentSpec) -> Iterator[_Use]:
    for issuer in spec.access.issuers if spec.access is not None else ():
        if issuer.ca is not None:
            where = f'spec.access.issuers[name="{issuer.name}"].ca.secretRef'
            yield _Use("Secret", issuer.ca.secret_ref.name, issuer.ca.secret_ref.key, where, live=True)
    if spec.tls is not None:
        for key in ("tls.crt", "tls.key"):
            yield _Use("Secret", spec.tls.secret_ref.name, key, "spec.tls.secretRef", live=True)
        if (ca := spec.tls.client_ca) is not None:
            yield _Use("Secret", ca.secret_ref.name, ca.secret_ref.key, "spec.tls.clientCa.secretRef", live=True)


def _missing(use: _Use, *, exists: bool) -> Verdict:
    reason = Reason.SECRET_NOT_FOUND if use.kind == "Secret" else Reason.DEPENDENCY_NOT_FOUND
    if exists:
        return progressing(reason, f'{use.kind} "{use.name}" has no key "{use.key}": add it, or correct {use.field}')
    return progressing(reason, f'{use.kind} "{use.name}" does not exist: create it, or correct {use.field}.name')
