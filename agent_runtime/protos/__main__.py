# SPDX-License-Identifier: Apache-2.0
"""Generates the Python code of the protos. Needs grpcio-tools."""

import argparse
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from kubeagents_api.generated import write_or_check

_ROOT = Path(__file__).parent
_HEADER = "# SPDX-License-Identifier: Apache-2.0\n"
_IMPORT = re.compile(r"^from kubeagents\.", re.MULTILINE)


def generated() -> dict[Path, str]:
    """What the files should be. Raises RuntimeError if protoc refuses a proto."""
    from grpc_tools import protoc

    protos = sorted(_ROOT.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        paths = [f"--proto_path={_ROOT}", f"--proto_path={files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *paths, *options, *map(str, protos)]):
            raise RuntimeError("protoc refuses the protos; it has said why")
        made = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        # Among themselves they import each other by their proto package, which is not where they are.
        return {
            _ROOT / path.relative_to(folder): _HEADER + _IMPORT.sub("from agent_runtime.protos.kubeagents.", text)
            for path in made
            for text in (path.read_text(encoding="utf-8"),)
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m agent_runtime.protos", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something is stale")
    sys.exit(write_or_check(generated(), parser.parse_args().check))
