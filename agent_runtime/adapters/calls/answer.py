# SPDX-License-Identifier: Apache-2.0
"""What calls are answered with: JSON that is written once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a call."""

    json: str
    undo: Callable[[], Awaitable[None]] | None = None
    """Takes back what has been done for it, if it cannot be delivered."""


@dataclass(frozen=True, slots=True)
class End:
    """The last thing in a stream."""

    json: str


def text(model: BaseModel) -> Answer:
    """A model as an answer."""
    return Answer(model.model_dump_json(by_alias=True, exclude_none=True))
