# SPDX-License-Identifier: Apache-2.0
"""The examples are manifests that run; what is generated in them is up to date."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent_runtime.cli.dev.manifests import load
from agent_runtime.cli.dev.plan import make_plan

ROOT = Path(__file__).parents[3] / "examples"
EXAMPLES = sorted(path for path in ROOT.iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda path: str(path.name))
def test_every_example_can_be_planned_and_has_a_readme(folder: Path) -> None:
    plan = make_plan(load([folder], namespace="default"))
    assert {process.kind for process in plan.processes} == {"Agent", "CentralAgent"}
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize(
    ("folder", "config_map", "modules"),
    [
        ("01-quickstart", "quickstart-code", {"echo.py", "textstats.py"}),
        ("03-press-review", "press-review-code", {"editor.py", "linguist.py", "reader.py"}),
    ],
)
def test_the_code_in_a_config_map_is_the_python_files_beside_it(
    folder: str, config_map: str, modules: set[str]
) -> None:
    code = load([ROOT / folder], namespace="default").config_maps["default", config_map].content
    assert set(code) == modules
    for name, content in code.items():
        assert content == (ROOT / folder / name).read_bytes()


def test_the_generator_finds_a_stale_config_map(tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    shutil.copytree(ROOT, examples)

    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(examples / "generate_code.py"), "--check"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert check().returncode == 0
    with (examples / "01-quickstart" / "echo.py").open("a") as file:
        file.write("# changed\n")
    stale = check()
    assert stale.returncode == 1
    assert "10-code.yaml is stale: run `make generate`" in stale.stderr
