# SPDX-License-Identifier: Apache-2.0
"""The only poller of the test suite: for states that nothing announces."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, what: str, timeout: float = 30.0, every: float = 0.1) -> T:
    """Call `probe` until it returns something true and return that.

    An AssertionError of the probe counts as "not yet". Fails after `timeout` seconds with the last state seen.
    """
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            last = value = probe()
            if value:
                return value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}; last state: {last!r}")
        time.sleep(every)


async def eventually_async(
    probe: Callable[[], Awaitable[T]], *, what: str, timeout: float = 30.0, every: float = 0.05
) -> T:
    """The same for a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            last = value = await probe()
            if value:
                return value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}; last state: {last!r}")
        await asyncio.sleep(every)
