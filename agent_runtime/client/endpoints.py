# SPDX-License-Identifier: Apache-2.0
"""Where a CentralAgent can be reached, and how to show oneself and recognise it there."""

import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from kubeagents_api.errors import PermanentError
from kubeagents_api.labels import GRPC_PORT

_log = logging.getLogger(__name__)

Protocol = Literal["grpc", "websocket", "http"]

_SCHEMES: Final[dict[str, tuple[Protocol, bool]]] = {
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
    "ws": ("websocket", False),
    "wss": ("websocket", True),
    "http": ("http", False),
    "https": ("http", True),
}
_PORTS: Final[dict[tuple[Protocol, bool], int]] = {
    ("grpc", False): GRPC_PORT,
    ("grpc", True): GRPC_PORT,
    ("websocket", False): 80,
    ("websocket", True): 443,
    ("http", False): 80,
    ("http", True): 443,
}


class EndpointError(PermanentError):
    """An endpoint cannot be used as it is written, or with what is installed."""

    code = "INVALID_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One URL at which a CentralAgent can be reached."""

    url: str
    """As it was given, without a slash at the end."""
    protocol: Protocol
    secure: bool
    host: str
    port: int
    path: str
    """What comes before the paths of the API: empty, or for example `/agents` behind a proxy."""

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """Raises EndpointError that says what a URL looks like."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise EndpointError(f"{url!r} is not a URL: {error}") from error
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise EndpointError(
                f"{url!r} is not the URL of a CentralAgent: write for example http://127.0.0.1:8080, "
                f"with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
            )
        if parts.username is not None or parts.query or parts.fragment:
            raise EndpointError(
                f"the URL for {parts.hostname} must have no user, query or fragment: give the key apart"
            )
        protocol, secure = _SCHEMES[parts.scheme]
        path = parts.path.rstrip("/")
        if protocol == "grpc" and path:
            raise EndpointError(f"{url!r}: gRPC knows no paths, leave {path!r} out")
        return cls(
            url=url.rstrip("/"),
            protocol=protocol,
            secure=secure,
            host=parts.hostname,
            port=port or _PORTS[protocol, secure],
            path=path,
        )

    @property
    def authority(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to trust, and how to show oneself, where a port is encrypted. Paths of PEM files."""

    ca_file: Path | None = None
    """The authorities that are trusted; None: those that this machine trusts."""
    cert_file: Path | None = None
    """One's own certificate, where the server asks for one."""
    cert_key_file: Path | None = None
    """The key of that certificate, if it is not in the same file."""

    def context(self) -> ssl.SSLContext:
        """The same for HTTP and WebSocket. Raises EndpointError if a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.cert_key_file)
        except OSError as error:  # what ssl raises is one, too
            files = ", ".join(str(file) for file in (self.ca_file, self.cert_file, self.cert_key_file) if file)
            raise EndpointError(f"cannot use the certificates in {files}: {error}") from error
        return context


@dataclass(slots=True)
class Key:
    """The API key to show. One from a file may change while the program runs."""

    value: str | None = field(default=None, repr=False)
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.value is not None and self.file is not None:
            raise EndpointError("give a key or a file with a key, not both")
        if self.file is not None:
            self.value = self._read(self.file)

    def renewed(self) -> bool:
        """Look at the file again; whether there is another key in it now."""
        if self.file is None:
            return False
        try:
            before, self.value = self.value, self._read(self.file)
        except EndpointError as error:
            _log.warning("the key is refused, and there is no other one: %s", error)
            return False
        return self.value != before

    def headers(self) -> dict[str, str]:
        """How it is shown on HTTP. Not as Authorization, which may be for somebody on the way."""
        return {} if self.value is None else {"x-api-key": self.value}

    @staticmethod
    def _read(file: Path) -> str:
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise EndpointError(f"the file with the API key cannot be read: {error}") from error
        if not key.isascii() or not key.isprintable() or not key or " " in key:
            raise EndpointError(f"there is no API key in {file}: one is printable ASCII without spaces")
        return key
