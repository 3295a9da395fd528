# SPDX-License-Identifier: Apache-2.0
"""Validated manifests -> what to run: pure, and every reference is checked here, before anything starts."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent_runtime.cli.dev.manifests import Data, Key, Manifests, ManifestsError, Object
from agent_runtime.queue.timetable import Timetable
from kubeagents_api.agent import AgentSpec
from kubeagents_api.central_agent import CentralAgentSpec
from kubeagents_api.endpoints import Endpoint
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.model import QueueRef
from kubeagents_api.pod import EnvVar, KeyRef
from kubeagents_api.runtime_config import AgentConfig, CentralAgentConfig, agent_config, central_agent_config
from kubeagents_api.task_queue import TaskQueueSpec

HOST = "127.0.0.1"
ADDED_CENTRAL = "local"
"""Name of the CentralAgent that is added where the manifests have none."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


@dataclass(frozen=True)
class QueuePlan:
    """A queue, and where its tasks are held."""

    key: Key
    spec: TaskQueueSpec
    external_url: str | None = field(repr=False)
    """None: in the private Valkey."""


@dataclass(frozen=True)
class Ports:
    """Where a process listens."""

    http: int
    own: Mapping[Endpoint, int] = field(default_factory=dict)
    """Those of protocols that do not ride on HTTP."""


@dataclass(frozen=True)
class ProcessPlan:
    """One `python -m agent_runtime`."""

    name: str
    """Unique among the processes of the session, for log prefixes and file names."""
    kind: str
    owner: str
    """The Agent or CentralAgent."""
    namespace: str
    queues: tuple[Key, ...]
    """Its queues, in the order of their KUBEAGENTS_QUEUE_<i>_URL."""
    env: Mapping[str, str] = field(repr=False)
    drain_seconds: int
    does: str
    """Its handler or its queues, for people."""
    code: Key | None
    """The ConfigMap with its code."""
    config: Callable[[Ports, str | None], AgentConfig | CentralAgentConfig]
    """Makes the configuration from its ports and the folder with the code."""
    endpoints: tuple[Endpoint, ...] = ()
    """The protocols it serves."""


@dataclass(frozen=True)
class Plan:
    """Everything that a session runs."""

    processes: tuple[ProcessPlan, ...]
    queues: Mapping[Key, QueuePlan]
    code: Mapping[Key, Data]
    """ConfigMaps that must be there as folders."""
    notes: tuple[str, ...]
    """What is different from a cluster here, for people."""

    @property
    def needs_valkey(self) -> bool:
        return any(queue.external_url is None for queue in self.queues.values())


def make_plan(manifests: Manifests) -> Plan:
    """Work out what to run. Raises ManifestsError with every reference that leads nowhere."""
    planner = _Planner(manifests)
    return planner.plan()


class _Planner:
    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self._problems: list[str] = []
        self._notes: list[str] = [f"ignored, only a cluster runs it: {what}" for what in manifests.ignored]
        self._specs: dict[Key, TaskQueueSpec] = {}
        self._taken: set[str] = set()
        self._many_namespaces = len({key[0] for table in manifests.objects.values() for key in table}) > 1

    def plan(self) -> Plan:
        queues = {key: self._queue(key, item) for key, item in self._manifests.objects["TaskQueue"].items()}
        code: dict[Key, Data] = {}
        agents = [p for item in self._manifests.objects["Agent"].values() for p in self._agent(item, code)]
        centrals = [p for item in self._manifests.objects["CentralAgent"].values() for p in self._central(item)]
        if not queues and not self._problems:
            self._problems.append("there is no TaskQueue in these manifests: nothing can run without one")
        if self._problems:
            raise ManifestsError(self._problems)
        if not self._manifests.objects["CentralAgent"]:
            centrals = list(self._added_centrals())
        self._note_idle(queues.values(), centrals)
        return Plan(processes=(*centrals, *agents), queues=queues, code=code, notes=tuple(self._notes))

    def _queue(self, key: Key, item: Object) -> QueuePlan:
        spec = item.manifest.spec
        assert isinstance(spec, TaskQueueSpec)  # noqa: S101 - by its kind
        self._specs[key] = spec
        url: str | None = None
        if spec.redis.external is not None:
            ref = spec.redis.external.secret_ref
            value = self._value(
                item, "spec.redis.external.secretRef", KeyRef(name=ref.name, key=ref.key), self._manifests.secrets
            )
            url = value or ""
        for index, schedule in enumerate(spec.schedules):
            try:
                Timetable(schedule)
            except InvalidManifestError as error:
                self._problem(item, f"spec.schedules[{index}]", str(error))
        return QueuePlan(key=key, spec=spec, external_url=url)

    def _agent(self, item: Object, code: dict[Key, Data]) -> Iterable[ProcessPlan]:
        name, namespace, spec = item.manifest.name, item.manifest.namespace, item.manifest.spec
        assert isinstance(spec, AgentSpec)  # noqa: S101 - by its kind
        queue = self._known_queue(item, "spec.queueRef", spec.queue_ref)
        code_key: Key | None = None
        if spec.code is not None:
            code_key = (namespace, spec.code.config_map_ref.name)
            if code_key in self._manifests.config_maps:
                code[code_key] = self._manifests.config_maps[code_key]
            else:
                self._missing(item, "spec.code.configMapRef", "ConfigMap", code_key, self._manifests.config_maps)
        env = self._environment(item, spec.env)
        if queue is None:
            return []
        self._note_image(item, spec.image)
        processes = self._processes(name, spec)

        def config(ports: Ports, code_path: str | None) -> AgentConfig:
            return agent_config(
                name=name,
                namespace=namespace,
                spec=spec,
                queue=queue,
                code_path=code_path,
                host=HOST,
                port=ports.http,
                own_ports=ports.own,
            )

        return [
            ProcessPlan(
                name=self._process_name(namespace, f"{name}-{index}"),
                kind="Agent",
                owner=name,
                namespace=namespace,
                queues=((spec.queue_ref.namespace or namespace, spec.queue_ref.name),),
                env=env,
                drain_seconds=spec.drain_seconds,
                does=spec.handler,
                code=code_key,
                config=config,
                endpoints=tuple(spec.endpoints),
            )
            for index in range(processes)
        ]

    def _processes(self, name: str, spec: AgentSpec) -> int:
        """How many processes an Agent has here, where nobody scales."""
        if spec.suspend:
            self._notes.append(f'Agent "{name}" has suspend: true, so nothing runs for it')
            return 0
        if spec.autoscaling is not None:
            count = max(1, spec.autoscaling.min_replicas)
            self._notes.append(
                f'Agent "{name}" has autoscaling, which only a cluster does: {count} '
                f"{'process runs' if count == 1 else 'processes run'} for it all the time"
            )
            return count
        if spec.replicas == 0:
            self._notes.append(f'Agent "{name}" has replicas: 0, so nothing runs for it')
        return spec.replicas

    def _central(self, item: Object) -> Iterable[ProcessPlan]:
        spec = item.manifest.spec
        assert isinstance(spec, CentralAgentSpec)  # noqa: S101 - by its kind
        env = self._environment(item, spec.env)
        queues = [self._known_queue(item, f"spec.queueRefs[{i}]", ref) for i, ref in enumerate(spec.queue_refs)]
        if None in queues:
            return []
        self._note_image(item, spec.image)
        if spec.suspend:
            self._notes.append(f'CentralAgent "{item.manifest.name}" has suspend: true, so nothing runs for it')
            return []
        if spec.replicas > 1:
            self._notes.append(f'CentralAgent "{item.manifest.name}" has replicas: {spec.replicas}; one runs here')
        if spec.replicas == 0:
            self._notes.append(f'CentralAgent "{item.manifest.name}" has replicas: 0, so nothing runs for it')
            return []
        if spec.access is not None:
            self._notes.append(
                f'CentralAgent "{item.manifest.name}" has access: here nobody is asked for a key, as it can be reached '
                "from this machine only"
            )
        return [self._central_process(item.manifest.name, item.manifest.namespace, spec, env)]

    def _central_process(
        self, name: str, namespace: str, spec: CentralAgentSpec, env: Mapping[str, str]
    ) -> ProcessPlan:
        keys = tuple((ref.namespace or namespace, ref.name) for ref in spec.queue_refs)
        queues = {key[1]: self._specs[key] for key in keys}

        def config(ports: Ports, code_path: str | None) -> CentralAgentConfig:
            del code_path
            return central_agent_config(
                name=name,
                namespace=namespace,
                spec=spec,
                queues=queues,
                leader="alone",
                host=HOST,
                port=ports.http,
                own_ports=ports.own,
            )

        return ProcessPlan(
            name=self._process_name(namespace, name),
            kind="CentralAgent",
            owner=name,
            namespace=namespace,
            queues=keys,
            env=env,
            drain_seconds=0,
            does=", ".join(queues),
            code=None,
            config=config,
            endpoints=tuple(spec.endpoints),
        )

    def _added_centrals(self) -> Iterable[ProcessPlan]:
        """Without a CentralAgent nobody could submit anything, so there is one for each namespace with queues."""
        for namespace in sorted({key[0] for key in self._specs}):
            names = sorted(name for ns, name in self._specs if ns == namespace)
            spec = CentralAgentSpec(queue_refs=[QueueRef(name=name) for name in names])
            self._notes.append(
                f'no CentralAgent in these manifests: added one, "{ADDED_CENTRAL}" for {", ".join(names)}, so that '
                "tasks can be submitted; a cluster needs a manifest for it"
            )
            yield self._central_process(ADDED_CENTRAL, namespace, spec, {})

    def _process_name(self, namespace: str, wanted: str) -> str:
        name = f"{namespace}.{wanted}" if self._many_namespaces else wanted
        while name in self._taken:  # an Agent "a" with 2 replicas and a CentralAgent "a-1"
            name += "-central"
        self._taken.add(name)
        return name

    def _known_queue(self, item: Object, where: str, ref: QueueRef) -> TaskQueueSpec | None:
        key = (ref.namespace or item.manifest.namespace, ref.name)
        if key not in self._manifests.objects["TaskQueue"]:
            self._missing(item, where, "TaskQueue", key, self._manifests.objects["TaskQueue"])
        queue = self._specs.get(key)
        if queue is None or key[0] == item.manifest.namespace:
            return queue
        if not {"*", item.manifest.namespace} & set(queue.allowed_namespaces):
            what = f'TaskQueue "{key[1]}" of namespace "{key[0]}" does not name "{item.manifest.namespace}" in its'
            self._problem(item, where, f"{what} spec.allowedNamespaces: add it there")
            return None
        return queue

    def _environment(self, item: Object, entries: Sequence[EnvVar]) -> dict[str, str]:
        env: dict[str, str] = {}
        for entry in entries:
            if entry.value_from is None:
                env[entry.name] = _expand(entry.value or "", env)
                continue
            source, where = entry.value_from, f"spec.env {entry.name}"
            secret, config_map = source.secret_key_ref, source.config_map_key_ref
            ref = secret or config_map
            assert ref is not None  # noqa: S101 - a rule of the model
            value = self._value(item, where, ref, self._manifests.secrets if secret else self._manifests.config_maps)
            if value is not None:
                env[entry.name] = value
        return env

    def _value(self, item: Object, where: str, ref: KeyRef, table: Mapping[Key, Data]) -> str | None:
        kind = "Secret" if table is self._manifests.secrets else "ConfigMap"
        key = (item.manifest.namespace, ref.name)
        if key not in table:
            if not ref.optional:
                self._missing(item, where, kind, key, table)
            return None
        content = table[key].content
        if ref.key not in content:
            if not ref.optional:
                self._problem(
                    item,
                    where,
                    f'{kind} "{ref.name}" has no key "{ref.key}"; its keys are: {", ".join(sorted(content))}',
                )
            return None
        try:
            return content[ref.key].decode()
        except UnicodeDecodeError:
            self._problem(item, where, f'the value of key "{ref.key}" of {kind} "{ref.name}" is not text')
            return None

    def _missing(self, item: Object, where: str, kind: str, key: Key, table: Iterable[Key]) -> None:
        there = sorted(name for namespace, name in table if namespace == key[0])
        self._problem(
            item,
            where,
            f'there is no {kind} "{key[1]}" in namespace "{key[0]}" among these manifests'
            + (f"; there is: {', '.join(there)}" if there else "")
            + ("" if kind == "TaskQueue" else "; a local run needs its manifest too"),
        )

    def _problem(self, item: Object, where: str, what: str) -> None:
        self._problems.append(f'{item.source}: {item.manifest.kind.kind} "{item.manifest.name}": {where}: {what}')

    def _note_idle(self, queues: Iterable[QueuePlan], centrals: Sequence[ProcessPlan]) -> None:
        """What people may wonder about later: why nothing is taken, or nothing fires."""
        served = {key for central in centrals for key in central.queues}
        for queue in queues:
            name = queue.key[1]
            if queue.spec.paused:
                self._notes.append(f'TaskQueue "{name}" has paused: true, so agents take nothing from it')
            if queue.spec.closed:
                self._notes.append(f'TaskQueue "{name}" has closed: true, so it refuses new tasks')
            if queue.spec.schedules and queue.key not in served:
                self._notes.append(f'no CentralAgent serves TaskQueue "{name}", so its schedules do not fire')

    def _note_image(self, item: Object, image: str | None) -> None:
        if image is not None:
            self._notes.append(
                f'{item.manifest.kind.kind} "{item.manifest.name}": image {image} is not used here; its code must be '
                "importable in this Python environment"
            )


def _expand(value: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` -> the value of an earlier entry, `$$` -> `$`, as the kubelet does it."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match.group() == "$$" else env.get(match[1], match.group())

    return _REFERENCE.sub(replacement, value)
