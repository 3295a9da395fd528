# SPDX-License-Identifier: Apache-2.0
"""Generated files: written by `make generate`, held against their source by `make verify`."""

import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_check(files: Mapping[Path, str], check: bool) -> int:
    """Write the files that differ, or say which ones are stale. Returns the exit code."""
    stale = {p: t for p, t in files.items() if not p.exists() or p.read_text(encoding="utf-8") != t}
    for path, text in stale.items():
        if check:
            print(f"{path} is stale: run `make generate` and commit the result", file=sys.stderr)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 1 if check and stale else 0
