# SPDX-License-Identifier: Apache-2.0
"""The error tree. The two words that matter: Permanent and Temporary; they decide over retry, status and exit.

KubeagentsError
├── PermanentError            trying again is useless
│   ├── InvalidManifestError      a manifest breaks the schema or a rule
│   ├── InvalidTaskError          a submitted task is malformed (field named)
│   │   ├── PayloadTooLargeError      its payload is over the queue's limit
│   │   └── DuplicateTaskError        its id exists already
│   ├── QueueClosedError          the queue takes no new tasks
│   ├── TaskNotFoundError         no such task, or its result has expired
│   ├── QueueNotFoundError        the CentralAgent does not serve that queue
│   ├── KeyNotFoundError          no such API key
│   ├── UnauthenticatedError      whoever calls has not shown who it is
│   ├── ForbiddenError            whoever calls may not do that
│   ├── HandlerNotFoundError      `module:attribute` cannot be imported or is no handler
│   └── RuntimeConfigError        the runtime's configuration is missing or malformed
└── TemporaryError            trying again later may work (`delay` seconds, where known)
    ├── QueueFullError            the queue has as many tasks as it may
    ├── RateLimitedError          whoever calls has called too often
    ├── CordonedError             the process that wants tasks is to take none
    ├── IssuerUnavailableError    the issuer of a token does not answer, so nobody can tell whose it is
    └── QueueUnavailableError     Redis does not answer or refuses us
        └── QueueAuthError            Redis refuses the user or password
"""


class KubeagentsError(Exception):
    """Base of all errors that Kubeagents raises on purpose. `code` is the stable name used on every wire."""

    code = "INTERNAL"


class PermanentError(KubeagentsError):
    """Trying again is useless. Raised by a handler: the task fails at once, whatever attempts are left."""

    code = "FAILED"


class InvalidManifestError(PermanentError):
    code = "INVALID_MANIFEST"


class InvalidTaskError(PermanentError):
    """A task was refused. `field` names what is wrong with it, for example `priority`."""

    code = "INVALID_TASK"

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class PayloadTooLargeError(InvalidTaskError):
    code = "PAYLOAD_TOO_LARGE"

    def __init__(self, message: str, *, field: str = "payload") -> None:
        super().__init__(message, field=field)


class DuplicateTaskError(InvalidTaskError):
    code = "DUPLICATE_TASK"

    def __init__(self, message: str, *, field: str = "id") -> None:
        super().__init__(message, field=field)


class QueueClosedError(PermanentError):
    code = "QUEUE_CLOSED"


class TaskNotFoundError(PermanentError):
    code = "TASK_NOT_FOUND"


class QueueNotFoundError(PermanentError):
    code = "QUEUE_NOT_FOUND"


class KeyNotFoundError(PermanentError):
    code = "KEY_NOT_FOUND"


class UnauthenticatedError(PermanentError):
    code = "UNAUTHENTICATED"


class ForbiddenError(PermanentError):
    code = "FORBIDDEN"


class HandlerNotFoundError(PermanentError):
    code = "HANDLER_NOT_FOUND"


class RuntimeConfigError(PermanentError):
    code = "RUNTIME_CONFIG_INVALID"


class RedisUrlError(PermanentError):
    code = "REDIS_URL_INVALID"


class TemporaryError(KubeagentsError):
    """Trying again may work. Raised by a handler: the task is retried, after `delay` seconds where given."""

    code = "UNAVAILABLE"

    def __init__(self, message: str = "", *, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = delay


class QueueFullError(TemporaryError):
    code = "QUEUE_FULL"


class RateLimitedError(TemporaryError):
    code = "RATE_LIMITED"


class CordonedError(TemporaryError):
    """The process that wants tasks is cordoned. It has been given none, and is not until it is no longer cordoned."""

    code = "CORDONED"


class IssuerUnavailableError(TemporaryError):
    code = "ISSUER_UNAVAILABLE"


class QueueUnavailableError(TemporaryError):
    code = "QUEUE_UNAVAILABLE"


class QueueAuthError(QueueUnavailableError):
    code = "QUEUE_AUTH_FAILED"
