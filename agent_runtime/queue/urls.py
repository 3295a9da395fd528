# SPDX-License-Identifier: Apache-2.0
"""The URL of a queue's Redis: one server, or one that has to be found first, by Sentinels or in a cluster.

Messages never show the URL or a part of it that may be a password.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from kubeagents_api.errors import RedisUrlError

SERVER_PORT: Final = 6379
SENTINEL_PORT: Final = 26379

_SERVER_SHAPE: Final = "write redis://[user:password@]host[:port][/db], or rediss:// for TLS"
_SENTINEL_SHAPE: Final = (
    "write redis+sentinel://[user:password@]host[:port],host[:port]/master-name[/db]"
    "[?sentinel_username=…&sentinel_password=…], or rediss+sentinel:// for TLS"
)
_CLUSTER_SHAPE: Final = "write redis+cluster://[user:password@]host[:port],host[:port], or rediss+cluster:// for TLS"
_UNIX_SHAPE: Final = "write unix://[user:password@]/path/of/the/socket[?db=0]"
_SHAPES: Final = f"for one server {_SERVER_SHAPE}; for Sentinels {_SENTINEL_SHAPE}; for a cluster {_CLUSTER_SHAPE}"

Kind = Literal["server", "unix", "sentinel", "cluster"]
_KINDS: Final[dict[str, tuple[Kind, str]]] = {
    "redis": ("server", _SERVER_SHAPE),
    "rediss": ("server", _SERVER_SHAPE),
    "unix": ("unix", _UNIX_SHAPE),
    "redis+sentinel": ("sentinel", _SENTINEL_SHAPE),
    "rediss+sentinel": ("sentinel", _SENTINEL_SHAPE),
    "redis+cluster": ("cluster", _CLUSTER_SHAPE),
    "rediss+cluster": ("cluster", _CLUSTER_SHAPE),
}
_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"})
_SENTINEL_OPTIONS: Final = frozenset({"sentinel_password", "sentinel_username"})
_WAIT_REPLICAS: Final = re.compile("[0-9]")
_CERT_REQS: Final = ("none", "optional", "required")


class Node(NamedTuple):
    """Where a server or a Sentinel listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says."""

    kind: Kind
    nodes: tuple[Node, ...] = ()
    """The server, the Sentinels, or some nodes of the cluster; none for a socket."""
    path: str = ""
    """The socket."""
    master: str = ""
    """What the Sentinels call the master."""
    db: int = 0
    tls: bool = False
    login: dict[str, str] = field(default_factory=dict, repr=False)
    """User and password of the servers, as redis-py calls them."""
    sentinel_login: dict[str, str] = field(default_factory=dict, repr=False)
    """The same of the Sentinels; they are not asked for the servers' password."""
    tls_options: dict[str, Any] = field(default_factory=dict, repr=False)
    wait_replicas: int = 0
    """Replicas that must have a change before it is acknowledged."""


def parse_url(url: str) -> RedisUrl:
    """What the URL says. Raises RedisUrlError, which tells what to write instead."""
    scheme = url.partition("://")[0]
    kind, shape = _KINDS.get(scheme, (None, ""))
    if kind is None:
        raise RedisUrlError(f"the Redis URL has the wrong scheme: {_SHAPES}")
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, strict_parsing=bool(parts.query), keep_blank_values=True)
        login, nodes = _netloc(parts.netloc, SENTINEL_PORT if kind == "sentinel" else SERVER_PORT)
    except ValueError:
        raise RedisUrlError(
            f"the Redis URL is malformed: {shape}; escape special characters of the password "
            "(%40 for @, %2F for /, %23 for #, %3F for ?, %25 for %)"
        ) from None
    tls = scheme.startswith("rediss")
    options = _options(query, kind=kind, tls=tls, rest=parts.fragment, shape=shape)
    if kind == "unix":
        if nodes or not parts.path:
            raise RedisUrlError(f"the Redis URL has no path that begins with a slash: {_UNIX_SHAPE}")
        return RedisUrl(kind, path=unquote(parts.path), db=_database(options.get("db", ""), shape), login=login)
    if not nodes:
        raise RedisUrlError(f"the Redis URL has no host: {shape}")
    segments = [unquote(segment) for segment in parts.path.strip("/").split("/")]
    master = segments.pop(0) if kind == "sentinel" else ""
    database = segments.pop(0) if segments else ""
    if kind == "server" and len(nodes) > 1:
        raise RedisUrlError(
            f"the Redis URL names several hosts: for Sentinels {_SENTINEL_SHAPE}; for a cluster {_CLUSTER_SHAPE}"
        )
    if kind == "sentinel" and not master:
        raise RedisUrlError(f"the Redis URL does not say what the Sentinels call the master: {_SENTINEL_SHAPE}")
    if kind == "cluster" and _database(database, shape) != 0:
        raise RedisUrlError(f"the Redis URL has a database, but a cluster has none but 0: {_CLUSTER_SHAPE}")
    if segments:
        raise RedisUrlError(f"the path in the Redis URL has too many parts: {shape}")
    return RedisUrl(
        kind,
        nodes=nodes,
        master=master,
        db=_database(database, shape),
        tls=tls,
        login=login,
        sentinel_login={
            name.removeprefix("sentinel_"): value for name, value in options.items() if name in _SENTINEL_OPTIONS
        },
        tls_options={
            name: value != "false" if name == "ssl_check_hostname" else value
            for name, value in options.items()
            if name in _TLS_OPTIONS
        },
        wait_replicas=int(options.get("wait_replicas", "0")),
    )


def _netloc(netloc: str, default_port: int) -> tuple[dict[str, str], tuple[Node, ...]]:
    """User and password, and the hosts. Raises ValueError."""
    userinfo, _, hosts = netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    login = {name: unquote(value) for name, value in (("username", user), ("password", password)) if value}
    return login, tuple(_node(host, default_port) for host in hosts.split(",")) if hosts else ()


def _node(text: str, default_port: int) -> Node:
    # urlsplit knows IPv6 and checks the port; given several hosts at once it does not.
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return Node(unquote(parts.hostname), parts.port or default_port)


def _database(text: str, shape: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise RedisUrlError(f"the database in the Redis URL is not a number: {shape}")
    return int(text)


def _options(query: dict[str, list[str]], *, kind: Kind, tls: bool, rest: str, shape: str) -> dict[str, str]:
    allowed = frozenset(("db",)) if kind == "unix" else frozenset(("wait_replicas",))
    if tls:
        allowed |= _TLS_OPTIONS
    if kind == "sentinel":
        allowed |= _SENTINEL_OPTIONS
    unknown = sorted(query.keys() - allowed)
    if unknown or rest:
        advice = ""
        if not tls and _TLS_OPTIONS.intersection(unknown):
            advice = "; options that begin with ssl_ need rediss instead of redis"
        elif allowed:
            advice = f"; options are {', '.join(sorted(allowed))}"
        raise RedisUrlError(
            f"the Redis URL has options that are not known ({', '.join(unknown) or 'after #'}): {shape}{advice}"
        )
    options = {name: values[-1] for name, values in query.items()}
    if options.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise RedisUrlError("ssl_check_hostname in the Redis URL must be true or false")
    if options.get("ssl_cert_reqs", "required") not in _CERT_REQS:
        raise RedisUrlError(f"ssl_cert_reqs in the Redis URL must be one of {', '.join(_CERT_REQS)}")
    if not _WAIT_REPLICAS.fullmatch(options.get("wait_replicas", "0")):
        raise RedisUrlError("wait_replicas in the Redis URL must be a number from 0 to 9")
    return options
