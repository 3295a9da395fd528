# SPDX-License-Identifier: Apache-2.0
"""Times and spans as people type them."""

import re
from datetime import datetime, timedelta

from agent_runtime.cli.errors import EXIT_USAGE, CliError

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")


def seconds(option: str, text: str) -> float:
    """A span such as `90`, `90s`, `5m`, `2h` or `1d`, in seconds."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise CliError(
            f"{option} {text!r} is no span of time: write for example 90s, 5m, 2h or 1d", exit_code=EXIT_USAGE
        )
    return float(found[1]) * _UNITS[found[2]]


def moment(option: str, text: str, *, past: bool = False) -> str:
    """A time such as `2026-05-01T18:00` or a span from now (`past`: before now), in the API's form.

    Without a time zone it is in this machine's.
    """
    if _SPAN.fullmatch(text):
        span = timedelta(seconds=seconds(option, text))
        now = datetime.now().astimezone()
        return (now - span if past else now + span).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError:
        raise CliError(
            f"{option} {text!r} is no time: write for example 2026-05-01T18:00, 2026-05-01T18:00+02:00, or 2h for two "
            f"hours {'ago' if past else 'from now'}",
            exit_code=EXIT_USAGE,
        ) from None
