# SPDX-License-Identifier: Apache-2.0
"""The shape of the tree, where breaking it would break more than taste."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_top_level_is_as_the_architecture_says() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    folders = {line.split("/")[0] for line in tracked.splitlines() if "/" in line}
    assert folders == {
        ".ci",
        "agent_runtime",
        "benchmarks",
        "crds",
        "docs",
        "examples",
        "helm",
        "images",
        "operator",
        "tests",
    }
