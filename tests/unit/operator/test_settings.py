# SPDX-License-Identifier: Apache-2.0
import pytest

from kubeagents_api.errors import RuntimeConfigError
from kubeagents_operator.settings import load


def test_an_empty_environment_gives_settings_that_work() -> None:
    settings = load({})

    assert settings.watch_namespaces == ()
    assert settings.concurrency == 32
    assert settings.lease_namespace
    assert settings.instance


def test_each_field_has_a_variable() -> None:
    settings = load(
        {
            "KUBEAGENTS_WATCH_NAMESPACES": "shop, mail",
            "KUBEAGENTS_RUNTIME_IMAGE": "runtime:1",
            "KUBEAGENTS_INSTANCE": "operator-0",
            "KUBEAGENTS_LEASE_NAMESPACE": "system",
            "KUBEAGENTS_CONCURRENCY": "3",
            "KUBEAGENTS_SAMPLE_SECONDS": "2.5",
        }
    )

    assert settings.watch_namespaces == ("shop", "mail")
    assert settings.runtime_image == "runtime:1"
    assert settings.instance == "operator-0"
    assert settings.lease_namespace == "system"
    assert (settings.concurrency, settings.sample_seconds) == (3, 2.5)


def test_quotas_are_json() -> None:
    quotas = load(
        {"KUBEAGENTS_QUOTAS": '{"team-a": {"agents": 2, "tasksPerSecond": 0.5}, "*": {"replicas": 0}}'}
    ).quotas

    assert (quotas["team-a"].agents, quotas["team-a"].replicas, quotas["team-a"].tasks_per_second) == (2, None, 0.5)
    assert quotas["*"].replicas == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("team-a=5", "KUBEAGENTS_QUOTAS: it is no JSON"),
        ('{"team-a": {"agents": -1}}', "KUBEAGENTS_QUOTAS (team-a.agents): Input should be greater than or equal to 0"),
        ('{"team-a": {"pods": 1}}', "KUBEAGENTS_QUOTAS (team-a.pods): Extra inputs are not permitted"),
        ('{"team-a": {"agents": "5"}}', "KUBEAGENTS_QUOTAS (team-a.agents): Input should be a valid integer"),
        ('{"Team_A": {"agents": 1}}', "'Team_A' cannot be a namespace; use names, and * for all others"),
        ('{"team-*": {"agents": 1}}', "'team-*' cannot be a namespace"),
        ("[1]", "KUBEAGENTS_QUOTAS: Input should be a valid dictionary"),
    ],
)
def test_faulty_quotas_say_where_the_fault_is(text: str, message: str) -> None:
    with pytest.raises(RuntimeConfigError) as refused:
        load({"KUBEAGENTS_QUOTAS": text})
    assert message in str(refused.value)


def test_an_empty_variable_counts_as_unset() -> None:
    assert load({"KUBEAGENTS_WATCH_NAMESPACES": "", "KUBEAGENTS_CONCURRENCY": ""}).concurrency == 32


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KUBEAGENTS_CONCURRENCY", "many"),
        ("KUBEAGENTS_HTTP_PORT", "70000"),
        ("KUBEAGENTS_IMAGE_PULL_POLICY", "Sometimes"),
        ("KUBEAGENTS_LEASE_DURATION_SECONDS", "1"),
    ],
)
def test_a_faulty_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(RuntimeConfigError, match=variable):
        load({variable: value})


def test_a_pattern_is_no_namespace() -> None:
    with pytest.raises(RuntimeConfigError, match="patterns are not supported"):
        load({"KUBEAGENTS_WATCH_NAMESPACES": "team-*"})
