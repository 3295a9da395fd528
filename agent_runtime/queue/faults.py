# SPDX-License-Identifier: Apache-2.0
"""What Redis' errors mean: whether repeating helps, and whether to look for another server first."""

from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    ReadOnlyError,
    TimeoutError,
    TryAgainError,
)

AUTH_ERRORS: Final = (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
)
"""The server is there, but refuses our user, password or commands. Repeating does not help."""
PASSING_ERRORS: Final = (ConnectionError, TimeoutError, ReadOnlyError, ClusterDownError, TryAgainError, OSError)
"""Errors of a server that is starting, failing over or out of reach: the same command may work in a moment."""

_AUTH_WORDS: Final = (
    "unauthenticated",  # Redis reads only short commands of clients that have not logged in, and says "protocol error"
    "NOPERM",
    "ACL failure",  # the ACL forbids a command inside of a script, as Redis 7 and Valkey say it,
    "user executing the script can't run",  # and as Redis 6.2 and 7.0 do
)
_PASSING_WORDS: Final = ("BUSY", "UNBLOCKED", "NOREPLICAS")
"""Passing errors that redis-py has no class for, by their first word."""


def refused(error: Exception) -> bool:
    """Whether the server knows us and will not have us."""
    return isinstance(error, AUTH_ERRORS) or any(word in str(error) for word in _AUTH_WORDS)


def read_only(error: Exception) -> bool:
    """Whether it is a replica that we have written to."""
    # Redis 6.2 wraps the errors of commands inside of scripts. The other words are what WAIT says.
    return isinstance(error, ReadOnlyError) or any(word in str(error) for word in ("-READONLY", "replica instances"))


def redirected(error: Exception) -> bool:
    """Whether another node of a cluster has the keys: MOVED, or ASK while they are being moved."""
    return isinstance(error, AskError)


def passes(error: Exception) -> bool:
    """Whether the same command may work in a moment, at the same server."""
    if refused(error):
        return False
    return isinstance(error, PASSING_ERRORS) or read_only(error) or str(error).startswith(_PASSING_WORDS)


def elsewhere(error: Exception) -> bool:
    """Whether the server that we talked to may have been replaced by another one."""
    return not refused(error) and (
        isinstance(error, (ConnectionError, TimeoutError, ClusterDownError, OSError))
        or read_only(error)
        or redirected(error)
    )
