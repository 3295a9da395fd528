# SPDX-License-Identifier: Apache-2.0
"""Write 10-code.yaml, the ConfigMap with the agents' Python files, so that a cluster runs the very same code.

With --check nothing is written, and the exit code says whether the file is up to date. Without our tools it would be
`kubectl create configmap quickstart-code --from-file=echo.py --from-file=textstats.py --dry-run=client -o yaml`.
"""

import argparse
from pathlib import Path

from kubeagents_api.generated import write_or_check

HERE = Path(__file__).parent
TARGET = HERE / "10-code.yaml"
MODULES = ("echo.py", "textstats.py")

HEAD = """\
# Generated from the Python files beside it by `make generate`. Do not edit.
apiVersion: v1
kind: ConfigMap
metadata:
  name: quickstart-code
data:
"""


def config_map() -> str:
    """The manifest, with each file as a literal block: it reads like the file itself."""
    parts = [HEAD]
    for name in MODULES:
        lines = (HERE / name).read_text(encoding="utf-8").splitlines()
        parts.append(f"  {name}: |\n" + "".join(f"    {line}\n" if line else "\n" for line in lines))
    return "".join(parts)


def main() -> int:
    """Generate or check."""
    parser = argparse.ArgumentParser(description="Generate the ConfigMap with the agents' code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    return write_or_check({TARGET: config_map()}, parser.parse_args().check)


if __name__ == "__main__":
    raise SystemExit(main())
