# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from agent_runtime.cli.dev.manifests import ManifestsError, load
from agent_runtime.cli.dev.plan import Plan, Ports, make_plan
from kubeagents_api.runtime_config import AgentConfig, CentralAgentConfig
from tests.unit.cli.manifest_texts import AGENT, CENTRAL, CODE, EXTERNAL_QUEUE, QUEUE, REDIS, documents


def planned(folder: Path, *texts: str) -> Plan:
    (folder / "all.yaml").write_text(documents(*texts))
    return make_plan(load([folder], namespace="default"))


def problems(folder: Path, *texts: str) -> list[str]:
    with pytest.raises(ManifestsError) as caught:
        planned(folder, *texts)
    return caught.value.problems


def test_there_is_one_process_per_replica_and_one_per_central_agent(tmp_path: Path) -> None:
    plan = planned(tmp_path, QUEUE, AGENT, CENTRAL, CODE)
    assert [process.name for process in plan.processes] == ["central", "echo-0", "echo-1"]
    assert plan.needs_valkey
    assert plan.notes == ()


def test_the_configurations_come_from_the_functions_that_the_operator_uses(tmp_path: Path) -> None:
    central, agent, _ = (
        p.config(Ports(8123), "/code") for p in planned(tmp_path, QUEUE, AGENT, CENTRAL, CODE).processes
    )
    assert isinstance(central, CentralAgentConfig)
    assert (central.host, central.port, central.leader.type) == ("127.0.0.1", 8123, "alone")
    assert [queue.url_env for queue in central.queues] == ["KUBEAGENTS_QUEUE_0_URL"]
    assert isinstance(agent, AgentConfig)
    assert (agent.host, agent.port, agent.code_path) == ("127.0.0.1", 8123, "/code")


def test_every_reference_that_leads_nowhere_is_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        EXTERNAL_QUEUE.replace("name: tasks", "name: other"),
        AGENT,
        CENTRAL.replace("[{name: tasks}]", "[{name: other}, {name: nope}]"),
    )
    where = f"{tmp_path}/all.yaml, document"
    assert found == [
        f'{where} 1 (line 2): TaskQueue "other": spec.redis.external.secretRef: there is no Secret "redis" in '
        'namespace "default" among these manifests; a local run needs its manifest too',
        f'{where} 2 (line 7): Agent "echo": spec.queueRef: there is no TaskQueue "tasks" in namespace "default" among '
        "these manifests; there is: other",
        f'{where} 2 (line 7): Agent "echo": spec.code.configMapRef: there is no ConfigMap "code" in namespace '
        '"default" among these manifests; a local run needs its manifest too',
        f'{where} 3 (line 16): CentralAgent "central": spec.queueRefs[1]: there is no TaskQueue "nope" in namespace '
        '"default" among these manifests; there is: other',
    ]


def test_references_do_not_cross_namespaces(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, QUEUE, CENTRAL.replace("{name: central}", "{name: central, namespace: prod}"))
    assert 'no TaskQueue "tasks" in namespace "prod"' in problem


def test_a_queue_of_another_namespace_needs_its_grant(tmp_path: Path) -> None:
    central = CENTRAL.replace("{name: central}", "{name: central, namespace: prod}")
    central = central.replace("{name: tasks}", "{name: tasks, namespace: default}")
    granting = QUEUE + "spec: {allowedNamespaces: [prod]}\n"

    [problem] = problems(tmp_path, QUEUE, central)
    [process] = planned(tmp_path, granting, central).processes

    assert 'does not name "prod" in its spec.allowedNamespaces' in problem
    assert process.queues == (("default", "tasks"),)


def test_names_of_processes_stay_unique_over_namespaces_and_kinds(tmp_path: Path) -> None:
    moved = [text.replace("metadata: {name", "metadata: {namespace: prod, name") for text in (QUEUE, CENTRAL)]
    names = [process.name for process in planned(tmp_path, QUEUE, CENTRAL, *moved).processes]
    assert names == ["default.central", "prod.central"]
    clash = planned(tmp_path, QUEUE, CODE, AGENT, CENTRAL.replace("name: central", "name: echo-1"))
    assert [process.name for process in clash.processes] == ["echo-1-central", "echo-0", "echo-1"]


def test_an_external_redis_comes_from_its_secret_and_is_never_shown(tmp_path: Path) -> None:
    plan = planned(tmp_path, EXTERNAL_QUEUE, REDIS, AGENT, CODE)
    assert plan.queues["default", "tasks"].external_url == "redis://:hunter2@127.0.0.1:6379/0"
    assert not plan.needs_valkey
    assert "hunter2" not in repr(plan)
    [problem] = problems(tmp_path, EXTERNAL_QUEUE, REDIS.replace("url:", "uri:"))
    assert 'Secret "redis" has no key "url"; its keys are: uri' in problem


def test_the_environment_is_resolved_as_the_kubelet_does_it(tmp_path: Path) -> None:
    env = """
  env:
    - {name: USER, value: me}
    - {name: GREETING, value: "$(USER) $(NOBODY) $$(USER)"}
    - {name: URL, valueFrom: {secretKeyRef: {name: redis, key: url}}}
    - {name: CODE, valueFrom: {configMapKeyRef: {name: code, key: echo.py}}}
    - {name: MAYBE, valueFrom: {secretKeyRef: {name: nope, key: k, optional: true}}}
"""
    plan = planned(tmp_path, QUEUE, CODE, REDIS, AGENT.rstrip("\n") + env)
    found = plan.processes[-1].env
    assert found["GREETING"] == "me $(NOBODY) $(USER)"
    assert found["URL"].startswith("redis://")
    assert found["CODE"].startswith("async def handle")
    assert "MAYBE" not in found
    [problem] = problems(tmp_path, QUEUE, CODE, REDIS, (AGENT.rstrip("\n") + env).replace("key: url", "key: uri"))
    assert 'Agent "echo": spec.env URL: Secret "redis" has no key "uri"' in problem


def test_a_central_agent_is_added_where_there_is_none_and_that_is_told(tmp_path: Path) -> None:
    plan = planned(tmp_path, QUEUE, AGENT, CODE)
    assert [process.name for process in plan.processes] == ["local", "echo-0", "echo-1"]
    assert plan.notes == (
        'no CentralAgent in these manifests: added one, "local" for tasks, so that tasks can be submitted; '
        "a cluster needs a manifest for it",
    )


def test_what_is_different_from_a_cluster_is_told(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        QUEUE,
        CODE,
        AGENT.replace("replicas: 2", "replicas: 0\n  image: example.com/mine:1"),
        CENTRAL.replace("spec: {", "spec: {replicas: 3, "),
    )
    assert [process.name for process in plan.processes] == ["central"]
    assert plan.notes == (
        'Agent "echo": image example.com/mine:1 is not used here; its code must be importable in this Python '
        "environment",
        'Agent "echo" has replicas: 0, so nothing runs for it',
        'CentralAgent "central" has replicas: 3; one runs here',
    )


def test_manifests_without_a_queue_have_nothing_to_run(tmp_path: Path) -> None:
    assert problems(tmp_path, CODE) == ["there is no TaskQueue in these manifests: nothing can run without one"]


SCHEDULED = """
apiVersion: kubeagents.dev/v1alpha1
kind: TaskQueue
metadata: {name: tasks}
spec:
  paused: true
  closed: true
  schedules: [{name: tick, everySeconds: 5}]
"""


def test_schedules_run_in_the_central_agent_and_shut_queues_are_told(tmp_path: Path) -> None:
    plan = planned(tmp_path, SCHEDULED, CENTRAL)

    config = plan.processes[0].config(Ports(8123), None)
    assert isinstance(config, CentralAgentConfig)
    assert [schedule.name for schedule in config.schedules["tasks"]] == ["tick"]
    assert plan.notes == (
        'TaskQueue "tasks" has paused: true, so agents take nothing from it',
        'TaskQueue "tasks" has closed: true, so it refuses new tasks',
    )


def test_schedules_that_nobody_fires_are_told(tmp_path: Path) -> None:
    plan = planned(tmp_path, SCHEDULED, CENTRAL.replace("name: tasks", "name: other"), QUEUE.replace("tasks", "other"))

    assert plan.notes[-1] == 'no CentralAgent serves TaskQueue "tasks", so its schedules do not fire'


def test_a_schedule_that_is_never_due_is_a_fault(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, SCHEDULED.replace("everySeconds: 5", "cron: '61 * * * *'"), CENTRAL)

    assert "spec.schedules[0]: schedule 'tick': the minute of cron '61 * * * *' is not valid" in problem


def test_what_an_agent_can_do_and_how_it_is_called_reaches_its_processes(tmp_path: Path) -> None:
    agent = AGENT.rstrip() + "\n  capabilities: [ocr]\n  batch: {maxTasks: 4}\n"
    [process, *_] = [p for p in planned(tmp_path, QUEUE, agent, CENTRAL, CODE).processes if p.kind == "Agent"]

    config = process.config(Ports(8123), "/code")
    assert isinstance(config, AgentConfig)
    assert config.capabilities == ["ocr"]
    assert config.batch is not None
    assert config.batch.max_tasks == 4


@pytest.mark.parametrize(("least", "names"), [(0, ["echo-0"]), (1, ["echo-0"]), (3, ["echo-0", "echo-1", "echo-2"])])
def test_an_autoscaled_agent_has_its_fewest_replicas_all_the_time_but_at_least_one(
    tmp_path: Path, least: int, names: list[str]
) -> None:
    scaled = AGENT.replace("replicas: 2", f"autoscaling: {{minReplicas: {least}, maxReplicas: 9}}")
    plan = planned(tmp_path, QUEUE, scaled, CENTRAL, CODE)
    assert [process.name for process in plan.processes] == ["central", *names]
    runs = "1 process runs" if len(names) == 1 else f"{len(names)} processes run"
    assert plan.notes == (f'Agent "echo" has autoscaling, which only a cluster does: {runs} for it all the time',)


def test_nobody_is_asked_for_a_key_here_and_that_is_said(tmp_path: Path) -> None:
    access = "access: {principals: [{name: root, role: admin, keysFrom: {name: root-keys}}]}"
    plan = planned(tmp_path, QUEUE, CENTRAL.replace("spec: {", f"spec: {{{access}, "))
    (central,) = (process.config(Ports(8123), None) for process in plan.processes)
    assert isinstance(central, CentralAgentConfig)
    assert (central.host, central.access, central.keys_path) == ("127.0.0.1", None, None)
    (note,) = plan.notes
    assert note.startswith('CentralAgent "central" has access: here nobody is asked for a key')


def test_nothing_runs_for_what_is_suspended(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        QUEUE,
        AGENT.replace("replicas: 2", "suspend: true\n  autoscaling: {maxReplicas: 3}"),
        CENTRAL.replace("spec: {", "spec: {suspend: true, "),
        CODE,
    )
    assert plan.processes == ()
    assert plan.notes == (
        'Agent "echo" has suspend: true, so nothing runs for it',
        'CentralAgent "central" has suspend: true, so nothing runs for it',
    )
