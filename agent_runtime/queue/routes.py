# SPDX-License-Identifier: Apache-2.0
"""Connections that follow their server when it moves.

A route knows where the queue's server is. What a connection meets on its way tells whether that may be over: it
breaks, hangs, or the server says that it is a replica or does not own the slot. Then the next connection asks the
locator again. Once the server is somewhere else, all connections to the old place are cut, so that whoever is blocked
there, or subscribed, notices at once.
"""

import asyncio
import logging
import weakref
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import MovedError

from agent_runtime.cancellation import end
from agent_runtime.queue.faults import elsewhere, read_only
from agent_runtime.queue.locators import Locator
from agent_runtime.queue.urls import Node

log = logging.getLogger(__name__)


class Route:
    """Where the connections of one queue object lead."""

    def __init__(self, locator: Locator) -> None:
        self.locator = locator
        self.node: Node | None = None
        """The server, as far as we know."""
        self._connections: weakref.WeakSet[FollowingConnection] = weakref.WeakSet()
        self._looking = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._certain = False

    def join(self, connection: "FollowingConnection") -> None:
        """The connection shall follow."""
        self._connections.add(connection)

    async def find(self) -> Node:
        """The server to connect to."""
        if self._watch is None:
            self._watch = asyncio.create_task(
                self.locator.watch(self.turn), name=f"moves of {self.locator.description}"
            )
        async with self._looking:
            node = self.node
            if node is None or not self._certain:
                node = await self.locator.locate()
                self.turn(node)
            return node

    def turn(self, node: Node) -> None:
        """The server is here now: cut what leads elsewhere."""
        self._certain = True
        if node == self.node:
            return
        if self.node is not None:
            log.warning("%s has moved from %s to %s", self.locator.description, self.node, node)
        self.node = node
        for connection in self._connections:
            if connection.leads_to != node:
                connection.cut()

    def doubt(self, node: Node, error: Exception) -> None:
        """A connection to the node has met this error."""
        if isinstance(error, MovedError):
            # An empty or unknown host means: the one that you have asked.
            owner = Node(error.host if error.host not in ("", "?") else node.host, error.port)
            self.locator.told(owner)
            if node == self.node:
                self.turn(owner)
        elif node == self.node and elsewhere(error):
            self._certain = False

    def unsure(self) -> None:
        """Something hangs: ask again where the server is, before the next connection is made."""
        self._certain = False

    async def aclose(self) -> None:
        """End the watch."""
        if self._watch is not None:
            await end(self._watch)
            self._watch = None


class FollowingConnection(Connection):
    """A connection that goes to where the server is when it is made."""

    def __init__(self, *, route: Route, **options: Any) -> None:
        super().__init__(**options)
        self._route = route
        self.leads_to: Node | None = None
        route.join(self)

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connect, if that is not so yet. All ways to connect lead through here."""
        if self.is_connected:
            return
        node = self.leads_to = await self._route.find()
        self.host, self.port = node
        try:
            await super().connect_check_health(check_health, retry_socket_connect)
        except Exception as error:
            self._route.doubt(node, error)
            raise

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read an answer, and note what it says about where the server is."""
        try:
            return await super().read_response(*args, **options)
        except Exception as error:
            if self.leads_to is not None:
                self._route.doubt(self.leads_to, error)
            if read_only(error) or isinstance(error, MovedError):
                self.cut()
            raise

    def cut(self) -> None:
        """Break the connection; who reads from it is told at once."""
        if self._writer is not None:
            self._writer.transport.abort()


class FollowingSSLConnection(FollowingConnection, SSLConnection):
    """The same with TLS."""
