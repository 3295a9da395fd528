# SPDX-License-Identifier: Apache-2.0
"""The examples are manifests that run; what is generated in them is up to date."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_runtime.cli.dev.manifests import load
from agent_runtime.cli.dev.plan import make_plan

EXAMPLES = sorted(path for path in (Path(__file__).parents[3] / "examples").iterdir() if path.is_dir())
QUICKSTART = EXAMPLES[0]


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda path: str(path.name))
def test_every_example_can_be_planned_and_has_a_readme(folder: Path) -> None:
    plan = make_plan(load([folder], namespace="default"))
    assert {process.kind for process in plan.processes} == {"Agent", "CentralAgent"}
    assert (folder / "README.md").is_file()


def test_the_code_of_the_quickstart_is_the_python_files_beside_it() -> None:
    code = load([QUICKSTART], namespace="default").config_maps["default", "quickstart-code"].content
    assert set(code) == {"echo.py", "textstats.py"}
    for name, content in code.items():
        assert content == (QUICKSTART / name).read_bytes()


def test_the_generator_finds_a_stale_config_map(tmp_path: Path) -> None:
    for name in ("generate_code.py", "echo.py", "textstats.py", "10-code.yaml"):
        (tmp_path / name).write_bytes((QUICKSTART / name).read_bytes())

    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "generate_code.py"), "--check"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert check().returncode == 0
    with (tmp_path / "echo.py").open("a") as file:
        file.write("# changed\n")
    stale = check()
    assert stale.returncode == 1
    assert "10-code.yaml is stale: run `make generate`" in stale.stderr
