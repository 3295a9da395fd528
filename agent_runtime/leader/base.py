# SPDX-License-Identifier: Apache-2.0
"""The seam between what must be done by one process only and what elects that process."""

from typing import Protocol


class Elector(Protocol):
    """Competes for leadership from `start` to `stop`; may lead, lose and lead again in between."""

    identity: str
    """Name of this process; no two live ones may share it."""

    @property
    def is_leader(self) -> bool:
        """Whether this process leads at this very moment. Ask before each act that only a leader may do."""
        ...

    @property
    def fencing(self) -> int:
        """Number of the current term, greater than that of every earlier one; that of the last term when not leading,
        0 before the first one."""
        ...

    @property
    def holder(self) -> str | None:
        """Who leads as far as this process knows; None when nobody does or it is not known yet."""
        ...

    async def start(self) -> None:
        """Begin to compete, in the background."""
        ...

    async def stop(self) -> None:
        """Stop competing and, when leading, hand over at once."""
        ...

    async def wait_until_leading(self) -> int:
        """Wait for the next term of this process, or return at once within one; its fencing number."""
        ...

    async def wait_until_lost(self) -> None:
        """Wait for the end of the current term; returns at once when not leading."""
        ...
