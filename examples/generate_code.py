# SPDX-License-Identifier: Apache-2.0
"""Write the examples' 10-code.yaml: ConfigMaps with the agents' Python files, so that clusters run the very same code.

With --check nothing is written, and the exit code says whether the files are up to date. Without our tools it would be
`kubectl create configmap quickstart-code --from-file=echo.py --from-file=textstats.py --dry-run=client -o yaml`.
"""

import argparse
from pathlib import Path

from kubeagents_api.generated import write_or_check

HERE = Path(__file__).parent
CODE = {
    "01-quickstart": ("quickstart-code", ("echo.py", "textstats.py")),
    "03-press-review": ("press-review-code", ("editor.py", "linguist.py", "reader.py")),
}
"""By the example's folder: name of the ConfigMap, and the files in it."""

HEAD = """\
# Generated from the Python files beside it by `make generate`. Do not edit.
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
data:
"""


def config_map(folder: Path, name: str, modules: tuple[str, ...]) -> str:
    """The manifest, with each file as a literal block: it reads like the file itself."""
    parts = [HEAD.format(name=name)]
    for module in modules:
        lines = (folder / module).read_text(encoding="utf-8").splitlines()
        parts.append(f"  {module}: |\n" + "".join(f"    {line}\n" if line else "\n" for line in lines))
    return "".join(parts)


def main() -> int:
    """Generate or check."""
    parser = argparse.ArgumentParser(description="Generate the ConfigMaps with the agents' code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    files = {HERE / folder / "10-code.yaml": config_map(HERE / folder, *code) for folder, code in CODE.items()}
    return write_or_check(files, parser.parse_args().check)


if __name__ == "__main__":
    raise SystemExit(main())
