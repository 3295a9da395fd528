# SPDX-License-Identifier: Apache-2.0
"""Lets clients in: who may use a core, the HTTP port, the adapters. For a CentralAgent as for an Agent's endpoints."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from agent_runtime.adapters.base import Core, Listening, Surroundings
from agent_runtime.adapters.http.web import Web
from agent_runtime.adapters.registry import adapter as adapter_class
from agent_runtime.queue.access_store import AccessStore
from agent_runtime.queue.push_store import PushStore
from agent_runtime.security import (
    Audit,
    Authenticator,
    Certificates,
    Guard,
    Identities,
    KeyFiles,
    Peers,
    Rates,
    RuntimeKeys,
    Tls,
    Tokens,
    issuer_keys,
)
from agent_runtime.telemetry.http_server import AsgiApp
from kubeagents_api.errors import RuntimeConfigError
from kubeagents_api.runtime_config import ServingConfig

Run = Callable[[], Coroutine[Any, Any, None]]
Narrow = Callable[[Authenticator], Authenticator]


class Serving:
    """Serves one core."""

    def __init__(
        self,
        config: ServingConfig,
        core: Core,
        stack: contextlib.AsyncExitStack,
        *,
        instance: str,
        url: str,
        store: str,
        probes: AsgiApp,
        registry: CollectorRegistry,
        narrow: Narrow | None = None,
    ) -> None:
        """`url` is of the Redis that keeps the keys, under the name `store`. `narrow` makes less of what callers may.

        Raises RuntimeConfigError for certificates that cannot be read.
        """
        tls = Tls(config.tls, registry=registry) if config.tls is not None else None
        guard, runs = _guard(
            config, core, stack, instance=instance, url=url, store=store, registry=registry, narrow=narrow
        )
        self.runs: Sequence[Run] = (*runs, *([tls.run] if tls is not None else []))
        """What must run in the background."""
        self.scheme = "http" if tls is None else "https"
        self._web = Web(
            core=core,
            guard=guard,
            probes=probes,
            registry=registry,
            host=config.host,
            port=config.port,
            tls=tls.context if tls is not None else None,
        )
        self._endpoints = dict(config.endpoints)
        push_store = PushStore(config.namespace, store, url=url) if "a2a" in config.endpoints else None
        if push_store is not None:
            stack.push_async_callback(push_store.aclose)
        self._adapters = {
            name: adapter_class(name)(
                Surroundings(
                    core=core,
                    guard=guard,
                    web=self._web,
                    host=config.host,
                    port=port,
                    registry=registry,
                    tls=tls,
                    endpoints=self._endpoints,
                    push_store=push_store,
                )
            )
            for name, port in config.endpoints.items()
        }

    @property
    def address(self) -> tuple[str, int]:
        """Where HTTP listens: host and port."""
        return self._web.address

    def ports(self) -> dict[str, int]:
        """Those of the protocols that do not ride on HTTP."""
        return {str(name): one.address[1] for name, one in self._adapters.items() if isinstance(one, Listening)}

    async def start(self) -> None:
        """Listen. Raises RuntimeConfigError if an address cannot be had."""
        for adapter in self._adapters.values():
            await adapter.start()
        await self._web.start()
        ports = self.ports()
        self._endpoints.update({name: ports[name] for name in self._endpoints if name in ports})

    async def stop(self, *, grace_seconds: float) -> None:
        """Take nothing new, let running calls end within the grace, then cut them."""
        adapters = (adapter.stop(grace_seconds=grace_seconds) for adapter in self._adapters.values())
        await asyncio.gather(self._web.stop(grace_seconds=grace_seconds), *adapters)


def _guard(
    config: ServingConfig,
    core: Core,
    stack: contextlib.AsyncExitStack,
    *,
    instance: str,
    url: str,
    store: str,
    registry: CollectorRegistry,
    narrow: Narrow | None,
) -> tuple[Guard | None, Sequence[Run]]:
    """What admits callers, if the configuration wants it, and what runs for it in the background."""
    required = config.tls is not None and config.tls.client_auth == "Required"
    if config.access is None or config.keys_path is None:
        if required:
            raise RuntimeConfigError("clients must show a certificate, but nobody is asked who it is: set access")
        return None, ()
    kept = AccessStore(config.namespace, store, url=url)
    stack.push_async_callback(kept.aclose)
    keys, rates, audit = RuntimeKeys(kept), Rates(), Audit(kept, registry=registry)
    principals = config.access.principals
    issuers = issuer_keys(config.access.issuers, ca=config.issuer_ca, registry=registry)
    identities: Authenticator = Identities(
        KeyFiles(Path(config.keys_path), principals),
        keys,
        tokens=Tokens(issuers),
        certificates=Certificates(principals),
    )
    guard = Guard(
        core,
        authenticator=identities if narrow is None else narrow(identities),
        rates=rates,
        audit=audit,
        keys=keys,
        certificate_required=required,
    )
    return guard, (Peers(kept, rates, instance=instance).run, audit.run, *(issuer.run for issuer in issuers))
