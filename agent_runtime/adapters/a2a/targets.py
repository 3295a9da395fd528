# SPDX-License-Identifier: Apache-2.0
"""Where push notifications may go, and the way there.

A target comes from a client, so the pod would be its errand boy inside the cluster: addresses of the pod itself, of its
node's metadata services, multicast and the like are refused, when a config is made and each time before anything is
sent. The request goes to the very address that was looked at, so a name that changes its mind gains nothing.
Private addresses are allowed, since agents in the cluster have them: a NetworkPolicy is the way to keep those apart.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from kubeagents_api.errors import InvalidTaskError

_TIMEOUT_SECONDS: Final = 10.0
"""For each step of a request."""
_WHOLE_SECONDS: Final = 30.0
"""For all of them: some let their answer drip."""
_LONGEST: Final = 2048
_METADATA: Final = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254")))
"""Metadata services of clouds that are not link-local."""


class ForbiddenTargetError(Exception):
    """Nothing is sent there."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What may be called."""

    loopback: bool
    """Whether the machine itself may: on a laptop, where the CentralAgent listens there only."""

    async def check(self, url: str, *, field: str) -> None:
        """Raises InvalidTaskError for a URL that nothing would be sent to."""
        try:
            await self._address(url)
        except ForbiddenTargetError as error:
            raise InvalidTaskError(f"{field}: {error}", field=field) from error

    async def post(self, client: httpx.AsyncClient, url: str, body: bytes, headers: dict[str, str]) -> None:
        """Send it. Raises ForbiddenTargetError, or httpx.HTTPError if it did not arrive or was not welcome."""
        parsed = httpx.URL(url)
        address = await self._address(url)
        request = client.build_request(
            "POST",
            parsed.copy_with(host=address),
            content=body,
            headers={**headers, "host": parsed.netloc.decode()},
            extensions={"sni_hostname": parsed.host},  # so that its certificate is that of the name
            timeout=_TIMEOUT_SECONDS,
        )
        try:
            async with asyncio.timeout(_WHOLE_SECONDS):
                answer = await client.send(request, stream=True)
                await answer.aclose()  # what it says does not matter, however long it is
        except TimeoutError as error:
            raise httpx.ReadTimeout("the answer takes too long", request=request) from error
        answer.raise_for_status()

    async def _address(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            httpx.URL(url)
        except (ValueError, httpx.InvalidURL) as error:
            raise ForbiddenTargetError(f"{url[:200]!r} is no URL") from error
        if parts.scheme not in ("http", "https") or not host or len(url) > _LONGEST:
            raise ForbiddenTargetError(f"{url[:200]!r} is no http or https URL of up to {_LONGEST} characters")
        if parts.username or parts.password:
            raise ForbiddenTargetError("the URL has a user or password: put them into authentication")
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                host, port or (443 if parts.scheme == "https" else 80), type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            raise ForbiddenTargetError(f"the host {host!r} is not known") from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if not self._allowed(address):
                raise ForbiddenTargetError(f"the host {host!r} is at {address}, where nothing may be sent")
        return addresses[0]

    def _allowed(self, text: str) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.sixtofour is not None or address.teredo is not None:
                return False  # they have another address inside
            address = address.ipv4_mapped or address
        if address.is_loopback:
            return self.loopback
        return not (
            address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or address.is_reserved
            or address in _METADATA
        )
