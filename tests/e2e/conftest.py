# SPDX-License-Identifier: Apache-2.0
"""One cluster per run with the chart installed, one namespace per test."""

import os
import re
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack

import pytest

from tests import cluster as cluster_tool
from tests.cluster import binaries, chart
from tests.support.cluster import Cluster

HERE = os.path.dirname(__file__)

PREPARED = "KUBEAGENTS_TEST_CLUSTER_PREPARED"
"""Set by `python -m tests.e2e`, which has made the cluster and installed the chart for several processes of pytest."""


FAILED = pytest.StashKey[bool]()
"""Set on a test that has failed, by the time its fixtures are torn down."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def bare_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster with our images in it. Made where none is given; with CI=true it must be had."""
    if PREPARED in os.environ:
        yield Cluster(cluster_tool.ensure())
        return
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with ExitStack() as turn:
        with capture.global_and_fixture_disabled():  # building takes minutes: people want to see what goes on
            # Runs on one machine share its cluster, and some tests stop the operator: so they take turns.
            turn.enter_context(binaries.lock(binaries.cache_folder() / "tests"))
            running = cluster_tool.is_running()
            try:
                handle = cluster_tool.ensure()
            except cluster_tool.ClusterUnavailableError as error:
                message = f"NO KUBERNETES CLUSTER: {error}. The tests on a real cluster did not run."
                if os.environ.get("CI") == "true":
                    pytest.exit(message, returncode=1)
                print(f"\n{message}\n", flush=True)
                pytest.skip(message)
        yield Cluster(handle)
        if not running and not request.config.getoption("--keep-cluster"):
            with capture.global_and_fixture_disabled():
                cluster_tool.down()


@pytest.fixture(scope="session")
def cluster(bare_cluster: Cluster) -> Cluster:
    """The cluster with the operator installed by its chart, as a user installs it."""
    if PREPARED not in os.environ:
        chart.install(bare_cluster.handle)
        bare_cluster.start_operator()
    return bare_cluster


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of its own, gone afterwards. That of a failed test stays for a look with --keep-cluster; all of them
    would be too many pods for one node, and slow down what comes after.
    """
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    name = f"{words}-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    keep = request.config.getoption("--keep-cluster") and request.node.stash.get(FAILED, False)
    if not keep:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
