# SPDX-License-Identifier: Apache-2.0
"""What an Agent says about itself to those who want to call it."""

import json
from datetime import datetime
from typing import Any, Final, Self

from pydantic import Field, JsonValue, model_validator

from kubeagents_api.model import ApiModel

INTERFACE_BYTES: Final = 16 * 1024
"""The largest interface, in bytes of JSON."""


def _open() -> dict[str, JsonValue]:
    return {"type": "object"}


class Interface(ApiModel):
    """What an Agent does, and what it wants for it."""

    description: str = ""
    """What it does, in the words of its handler's docstring."""
    input_schema: dict[str, JsonValue] = Field(default_factory=_open)
    """JSON Schema of the payload of its tasks; any object if the handler does not say."""

    @model_validator(mode="after")
    def _is_small(self) -> Self:
        if (size := len(json.dumps(self.to_wire(), ensure_ascii=False).encode())) > INTERFACE_BYTES:
            raise ValueError(
                f"the interface has {size} bytes of JSON, {INTERFACE_BYTES} are possible: shorten its description or "
                "its schema"
            )
        return self


class InterfaceInfo(ApiModel):
    """What one Agent has said about itself. Kept for a day after its last process, which may have been scaled away."""

    agent: str
    """The Agent."""
    capabilities: list[str] = Field(default_factory=list)
    """What it is able to do."""
    queue: str
    """The TaskQueue it takes tasks from."""
    description: str = ""
    """What it does."""
    input_schema: dict[str, Any] = Field(default_factory=_open)
    """JSON Schema of the payload of its tasks."""
    since: datetime
    """When this was said for the first time."""
    seen_at: datetime
    """When it was said last."""
