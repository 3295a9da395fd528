# SPDX-License-Identifier: Apache-2.0
"""The operator as processes, on a real control plane whose pods are played by kwok and whose workers by the test.

One control plane and one Redis for the session; one namespace for each test, which its operators serve and no others.
"""

import itertools
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kubeagents_api.runtime_config import queue_config
from kubeagents_api.task_queue import TaskQueueSpec
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterUnavailableError
from tests.integration.operator.manifests import QUEUE
from tests.support.api_fault_proxy import ApiFaultProxy
from tests.support.cluster import Cluster
from tests.support.control_plane import as_cluster, running_control_plane
from tests.support.fake_workers import FakeWorkers
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

StartOperator = Callable[..., OperatorProcess]
StartProxy = Callable[[], ApiFaultProxy]
StartWorkers = Callable[..., FakeWorkers]

HERE = Path(__file__).parent
CONTROL_PLANES = 2
"""How many may run side by side where pytest runs several tests at a time: one takes about half a core."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = sorted({item.path for item in items if item.path.is_relative_to(HERE)})
    for item in items:
        if item.path in files and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(f"control plane {files.index(item.path) % CONTROL_PLANES}"))


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The session's control plane. Tests that break it make one of their own (`running_control_plane`)."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        try:
            with capture.global_and_fixture_disabled():  # building takes minutes: people want to see what goes on
                plane = stack.enter_context(running_control_plane(tmp_path_factory.mktemp("control-plane"), nodes=3))
        except ClusterUnavailableError as error:
            message = f"NO CONTROL PLANE: {error}. The tests of the operator on it did not run."
            if os.environ.get("CI") == "true":
                pytest.exit(message, returncode=1)
            pytest.skip(message)
        yield plane


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Cluster:
    """The control plane by way of kubectl."""
    return as_cluster(control_plane)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of its own, gone afterwards."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    name = f"{words}-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def other_namespace(cluster: Cluster, namespace: str) -> Iterator[str]:
    """Another one."""
    name = f"{namespace[:50]}-other"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def start_operator(control_plane: ControlPlane, namespace: str) -> Iterator[StartOperator]:
    """Starts replicas, `start_operator("operator-2", KUBEAGENTS_CONCURRENCY="1")`, and waits until each is ready.

    They serve the test's namespace and compete for a Lease in it. What they logged is shown if the test fails.
    """
    with ExitStack() as stack:
        started: list[OperatorProcess] = []

        def start(
            instance: str = "operator-1",
            *,
            kubeconfig: Path | None = None,
            ready: bool = True,
            prefix: tuple[str, ...] = (),
            **environment: str,
        ) -> OperatorProcess:
            process = OperatorProcess(
                kubeconfig or control_plane.kubeconfig,
                instance,
                {
                    "KUBEAGENTS_WATCH_NAMESPACES": namespace,
                    "KUBEAGENTS_LEASE_NAMESPACE": namespace,
                    "KUBEAGENTS_LEASE_DURATION_SECONDS": "5",
                    "KUBEAGENTS_SAMPLE_SECONDS": "1",
                    **environment,
                },
                prefix,
            )
            started.append(stack.enter_context(process))
            return process.ready() if ready else process

        yield start
        for process in started:
            print(f"--- log of {process.instance} ---\n{process.log()}")


@pytest.fixture
def start_proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[StartProxy]:
    """Starts proxies in front of the API server: `start_operator(kubeconfig=start_proxy().kubeconfig)`."""
    with ExitStack() as stack:
        numbers = itertools.count(1)

        def start() -> ApiFaultProxy:
            return stack.enter_context(ApiFaultProxy(control_plane, tmp_path / f"proxy-{next(numbers)}"))

        yield start


@pytest.fixture
def operator(start_operator: StartOperator) -> OperatorProcess:
    """One replica that leads."""
    return start_operator().leading()


@pytest.fixture
def start_workers(cluster: Cluster, namespace: str, redis_server: RedisServer) -> Iterator[StartWorkers]:
    """Plays the pods of an Agent: `start_workers("worker", handler=…, concurrency=4)`, until the end of the test."""
    with ExitStack() as stack:

        def start(
            agent: str,
            *,
            queue: str = QUEUE,
            handler: object = None,
            redis: RedisServer = redis_server,
            **options: object,
        ) -> FakeWorkers:
            config = queue_config(name=queue, namespace=namespace, spec=TaskQueueSpec())
            workers = FakeWorkers(cluster, namespace, agent, config, redis.url, options=options)
            if handler is not None:
                workers.handler = handler
            return stack.enter_context(workers)

        yield start
