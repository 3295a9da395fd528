# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next try."""

import random

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 5.0


class Backoff:
    """Waits that double from 0.1 s to 5 s, each shortened by up to half at random so that a fleet does not return
    to a restarted Redis in step."""

    def __init__(self) -> None:
        self._next = _FIRST_SECONDS

    def pause(self) -> float:
        """Seconds to wait now."""
        seconds = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - spreading load is no cryptography
        self._next = min(_LONGEST_SECONDS, self._next * 2)
        return seconds

    def reset(self) -> None:
        """It worked: the next trouble starts with a short wait."""
        self._next = _FIRST_SECONDS
