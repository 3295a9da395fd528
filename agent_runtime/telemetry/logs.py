# SPDX-License-Identifier: Apache-2.0
"""Log lines with fields: JSON for machines, text for people.

Fields come from three places: the process (`agent`, `instance`), the work at hand (`task`, `request`; carried by a
context variable, so that any library's lines inside a handler have them too), and the call (`extra={...}`).
"""

import logging
import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TextIO

import orjson

from kubeagents_api.errors import RuntimeConfigError

LOG_FORMAT_ENV = "KUBEAGENTS_LOG_FORMAT"
"""Environment variable: `json` or `text`; text on a terminal and JSON elsewhere if unset."""
LOG_LEVEL_ENV = "KUBEAGENTS_LOG_LEVEL"
"""Environment variable: debug, info, warning or error; info if unset."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_COLOURS = {logging.DEBUG: "\x1b[2m", logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m"}
_NO_FIELDS: Mapping[str, Any] = MappingProxyType({})
_work: ContextVar[Mapping[str, Any]] = ContextVar("kubeagents_log_fields", default=_NO_FIELDS)


def bind(fields: Mapping[str, Any]) -> Token[Mapping[str, Any]]:
    """Add the fields to every line of the current task (in the sense of asyncio), instead of those bound before."""
    return _work.set(fields)


def unbind(token: Token[Mapping[str, Any]]) -> None:
    """Take back a `bind`."""
    _work.reset(token)


class FieldLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that adds fields to each line and keeps those of the call, which the standard adapter would drop."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then the fields."""

    def __init__(self, process_fields: Mapping[str, Any]) -> None:
        super().__init__()
        self._process_fields = dict(process_fields)

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._process_fields,
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class TextFormatter(logging.Formatter):
    """`12:30:00.125 INFO message key=value`."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        colour = _COLOURS.get(min(record.levelno, logging.ERROR)) if self._colours else None
        return f"{colour}{line}\x1b[0m" if colour else line


def configure(
    environ: Mapping[str, str], *, process_fields: Mapping[str, Any] = _NO_FIELDS, stream: TextIO | None = None
) -> None:
    """Send all logs of the process to `stream` (standard error) in the form that the environment asks for.

    May be called again, once more is known about the process. Raises RuntimeConfigError for an unknown format or level.
    """
    stream = stream if stream is not None else sys.stderr
    terminal = stream.isatty()
    level = environ.get(LOG_LEVEL_ENV, "info").lower()
    form = environ.get(LOG_FORMAT_ENV, "text" if terminal else "json").lower()
    if level not in _LEVELS:
        raise RuntimeConfigError(f"{LOG_LEVEL_ENV} is {level!r}: use one of {', '.join(_LEVELS)}")
    if form not in ("json", "text"):
        raise RuntimeConfigError(f"{LOG_FORMAT_ENV} is {form!r}: use json or text")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(process_fields) if form == "json" else TextFormatter(colours=terminal))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    for library in ("uvicorn", "mcp", "a2a"):  # what they say about their own life, this process says itself
        logging.getLogger(library).setLevel(logging.WARNING)
    # gRPC's core writes past all of this, also raw bytes of whoever has reached its port: lines that look like ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {**_work.get(), **{key: value for key, value in vars(record).items() if key not in _STANDARD}}
