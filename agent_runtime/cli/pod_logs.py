# SPDX-License-Identifier: Apache-2.0
"""Logs of an agent's pods, from the Kubernetes API."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

import httpx

from agent_runtime.cli.errors import CliError
from agent_runtime.cli.kubeconfig import Cluster, refusal
from agent_runtime.cli.output import stderr
from kubeagents_api.labels import OWNER_KIND, OWNER_NAME

_LOOK_SECONDS = 2.0
"""How often new pods are looked for while following."""
_CONNECT_SECONDS = 10.0


def show_pods(cluster: Cluster, agent: str, *, namespace: str, tail: int | None, follow: bool) -> None:
    """Print the logs of all pods of an Agent or CentralAgent. Following takes up new pods as they come."""
    asyncio.run(_Reader(cluster, agent, namespace=namespace, tail=tail).run(follow=follow))


class _Reader:
    def __init__(self, cluster: Cluster, agent: str, *, namespace: str, tail: int | None) -> None:
        self._cluster = cluster
        self._agent = agent
        self._pods_path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
        self._namespace = namespace
        self._tail = tail

    async def run(self, *, follow: bool) -> None:
        timeout = httpx.Timeout(_CONNECT_SECONDS, read=None if follow else 60.0)
        async with httpx.AsyncClient(
            base_url=self._cluster.host, timeout=timeout, **self._cluster.connection
        ) as client:
            try:
                pods = await self._pods(client)
                if not pods and not follow:
                    raise CliError(
                        f'there is no pod of an agent "{self._agent}" in namespace "{self._namespace}" of the context '
                        f'"{self._cluster.context}"; see `kubectl get agents -n {self._namespace}`'
                    )
                if follow:
                    await self._follow(client)
                    return
                for pod in pods:
                    async with aclosing(self._lines(client, pod, follow=False)) as lines:
                        async for line in lines:
                            print(f"{pod} │ {line}" if len(pods) > 1 else line, flush=True)
            except httpx.HTTPError as error:
                raise CliError(self._cluster.unreachable(error)) from error

    async def _follow(self, client: httpx.AsyncClient) -> None:
        copies: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for pod in await self._pods(client):
                    if pod not in copies:
                        copies[pod] = asyncio.create_task(self._copy(client, pod))
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            for copy in copies.values():
                copy.cancel()

    async def _copy(self, client: httpx.AsyncClient, pod: str) -> None:
        try:
            async with aclosing(self._lines(client, pod, follow=True)) as lines:
                async for line in lines:
                    print(f"{pod} │ {line}", flush=True)
            stderr().print(f"{pod} has ended", style="dim")
        except (httpx.HTTPError, CliError) as error:
            stderr().print(f"{pod}: {error}", style="yellow", markup=False)

    async def _pods(self, client: httpx.AsyncClient) -> list[str]:
        selector = f"{OWNER_NAME}={self._agent},{OWNER_KIND} in (Agent,CentralAgent)"
        response = await client.get(self._pods_path, params={"labelSelector": selector})
        if not response.is_success:
            raise CliError(f"listing the pods failed: the API server answered {refusal(response)}")
        # A container that has never run has no log yet; following takes it up when it does.
        return sorted(
            pod["metadata"]["name"]
            for pod in response.json()["items"]
            if any("waiting" not in c["state"] or c["restartCount"] for c in pod["status"].get("containerStatuses", ()))
        )

    async def _lines(self, client: httpx.AsyncClient, pod: str, *, follow: bool) -> AsyncGenerator[str, None]:
        params: dict[str, str | int] = {"follow": str(follow).lower()}
        if self._tail is not None:
            params["tailLines"] = self._tail
        async with client.stream("GET", f"{self._pods_path}/{pod}/log", params=params) as response:
            if not response.is_success:
                await response.aread()
                raise CliError(f"reading the log of {pod} failed: the API server answered {refusal(response)}")
            async for line in response.aiter_lines():
                yield line
