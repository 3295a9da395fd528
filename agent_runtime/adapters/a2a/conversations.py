# SPDX-License-Identifier: Apache-2.0
"""Which conversation a task is part of, and which message made it: kept in the idempotency key of the task.

So every replica can tell, without anything kept beside the task; and a message that is sent again, as its sender does
not know whether it arrived, is the same task again. The key is `a2a/<context>/<message>/<digest>`; the digest is of who
sent it to whom, as two senders may name their messages alike.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote

from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.task import TaskRecord

_PREFIX: Final = "a2a"
_LONGEST: Final = 100
"""Characters of an id, after quoting: a key has 256 at most."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a task comes from."""

    context: str
    message: str
    digest: str = ""

    @classmethod
    def of_message(cls, message: str, context: str, *, sender: str, receiver: str) -> Self:
        """Of a message. Without a context it gets one of its own, the same when it is sent again.

        Raises InvalidTaskError for ids that are too long.
        """
        for field, value in (("message.messageId", message), ("message.contextId", context)):
            if len(quote(value, safe="")) > _LONGEST:
                raise InvalidTaskError(f"{field} has more than {_LONGEST} characters, percent-encoded", field=field)
        whole = hashlib.sha256("\n".join((sender, receiver, message)).encode()).hexdigest()
        return cls(context or whole[32:], message, whole[:32])

    @classmethod
    def of_record(cls, record: TaskRecord) -> Self:
        """Of a task; one that came another way is a conversation of its own."""
        match (record.idempotency_key or "").split("/"):
            case [prefix, context, message, digest] if prefix == _PREFIX:
                return cls(unquote(context), unquote(message), digest)
        return cls(record.id, record.id)

    @property
    def key(self) -> str:
        """The idempotency key that says so."""
        return "/".join((_PREFIX, quote(self.context, safe=""), quote(self.message, safe=""), self.digest))
