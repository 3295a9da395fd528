# SPDX-License-Identifier: Apache-2.0
"""The keys of the principals that the manifest names: `<folder>/<principal>/<entry>`, mounted from their Secrets.

The kubelet replaces a mounted Secret by turning a symbolic link, so the files are read anew when something about them
has changed. Only digests are held.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from agent_runtime.security.caller import Caller
from agent_runtime.security.keys import digest
from kubeagents_api.access import Principal

_log = logging.getLogger(__name__)

SHORTEST_KEY: Final = 16
"""Characters."""
_PRINTABLE = re.compile(r"[!-~]+")
_LOOK_SECONDS: Final = 1.0
"""Between two looks whether something has changed, while calls come."""


class KeyFiles:
    """Looks keys up. Never waits for long: the files are small, and in memory."""

    def __init__(
        self, folder: Path, principals: Sequence[Principal], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._principals = {one.name: one for one in principals if one.keys_from is not None}
        self._clock = clock
        self._looked_at = float("-inf")
        self._seen: object = None
        self._callers: Mapping[str, Caller] = {}

    def caller(self, key: str) -> Caller | None:
        """Whose key it is."""
        if self._clock() - self._looked_at >= _LOOK_SECONDS:
            self._look()
        return self._callers.get(digest(key))

    def _look(self) -> None:
        self._looked_at = self._clock()
        files = {name: self._files(name) for name in self._principals}
        seen = {name: [(path.name, _stamp(path)) for path in paths] for name, paths in files.items()}
        if seen == self._seen:
            return
        callers: dict[str, Caller] = {}
        for name, paths in files.items():
            for path in paths:
                if (key := self._read(path)) is not None:
                    self._add(callers, key, name, path)
        self._callers, self._seen = callers, seen
        _log.info("%d API keys of %d principals are in Secrets", len(callers), len(files))

    def _files(self, principal: str) -> list[Path]:
        try:
            # Names that begin with a dot are the kubelet's own.
            return sorted(path for path in (self._folder / principal).iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []

    def _read(self, path: Path) -> str | None:
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("API key %s cannot be read: %s", path, error)
            return None
        if len(key) < SHORTEST_KEY or not _PRINTABLE.fullmatch(key):
            wanted = f"{SHORTEST_KEY} printable ASCII characters without spaces, or more"
            _log.warning("API key %s is not valid: it has %d characters, and must have %s", path, len(key), wanted)
            return None
        return key

    def _add(self, callers: dict[str, Caller], key: str, name: str, path: Path) -> None:
        principal = self._principals[name]
        word = digest(key)
        if (other := callers.get(word)) is not None and other.name != name:
            _log.warning("API key %s is not valid: %s has the same one", path, other.name)
            return
        callers[word] = Caller.of(name, principal, rate_limit=principal.rate_limit, key=path.name)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
