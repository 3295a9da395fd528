# SPDX-License-Identifier: Apache-2.0
"""One way to one CentralAgent: calls by name, whatever the wire."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

Params = Mapping[str, Any]
"""What orjson can write; camelCase as on the wire. Those that are None are left out."""


class Transport(Protocol):
    """Connects when it is first used, and again after the connection broke. Several calls may be under way at once."""

    @property
    def draining(self) -> bool:
        """The server has said that it stops: new calls should go elsewhere."""
        ...

    async def call(self, name: str, params: Params, *, timeout_seconds: float) -> Any:
        """The answer to a call, as decoded JSON.

        Raises UnreachableError if there is none in time, UnknownServerError if it makes no sense, else the error that
        the server answered with.
        """
        ...

    def stream(self, name: str, params: Params, *, silence_seconds: float) -> AsyncGenerator[Any, None]:
        """The items of a stream, as decoded JSON, to its end. Raises what `call` raises; UnreachableError if it breaks
        off, or neither an item nor a sign of life has come for so long."""
        ...

    async def probe(self, *, timeout_seconds: float) -> None:
        """See whether the server can be reached, and whether it drains. Raises UnreachableError, UnknownServerError."""
        ...

    async def reset(self) -> None:
        """Forget the connection, so that the next call makes a new one, with the key as it is now."""
        ...

    async def aclose(self) -> None:
        """End the connection. What is under way fails."""
        ...


def given(params: Params) -> dict[str, Any]:
    """The parameters that are not None."""
    return {name: value for name, value in params.items() if value is not None}
