# SPDX-License-Identifier: Apache-2.0
"""What all wires say alike about errors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kubeagents_api.errors import TemporaryError

RETRY_AFTER_SECONDS: Final = 2
"""When nothing better is known."""


def retry_said(error: TemporaryError) -> tuple[str, int]:
    """The sentence with when to try again, and that in seconds."""
    seconds = max(1, math.ceil(error.delay or RETRY_AFTER_SECONDS))
    return f"{error}; try again in {seconds} s", seconds


def first_said(errors: Sequence[Mapping[str, Any]]) -> str:
    """A phrase for faults with `field` and `message`: the first one, and how many more there are."""
    first = errors[0]
    said = f"{first['field']}: {first['message']}" if first["field"] else str(first["message"])
    return f"{said} (and {len(errors) - 1} more, see details)" if len(errors) > 1 else said
