# SPDX-License-Identifier: Apache-2.0
"""Write what follows from a chart's values.schema.json: values.yaml, and the table of values in its README.md.

The schema is the source, because it is the one of the three that Helm holds what users write against. With --check
nothing is written, and the exit code says whether the files are up to date.
"""

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kubeagents_api.generated import write_or_check

HERE = Path(__file__).parent
CHARTS = ("kubeagents-crds", "kubeagents")

HEAD = "# Generated from values.schema.json by `make generate`. Do not edit. A value that is not here is refused.\n"
BEGIN, END = "<!-- values, by `make generate` -->\n", "<!-- end of values -->\n"
_WIDTH = 116


def groups(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The values, and groups of values, of one level. `global` belongs to Helm."""
    for name, value in schema["properties"].items():
        if name != "global":
            yield name, value


def values_yaml(schema: Mapping[str, Any]) -> str:
    """Every value with its default, and above it what it means."""
    return HEAD + "".join(_yaml(schema, depth=0))


def _yaml(schema: Mapping[str, Any], *, depth: int) -> Iterator[str]:
    margin = "  " * depth
    for name, value in groups(schema):
        if depth == 0:
            yield "\n"
        for line in textwrap.wrap(value.get("description", ""), _WIDTH - len(margin)):
            yield f"{margin}# {line}\n"
        if "default" in value:
            yield textwrap.indent(yaml.safe_dump({name: value["default"]}, sort_keys=False, width=_WIDTH), margin)
        else:
            yield f"{margin}{name}:\n"
            yield from _yaml(value, depth=depth + 1)


def table(schema: Mapping[str, Any]) -> str:
    """The table of values for the README."""
    return "| value | default | meaning |\n|---|---|---|\n" + "".join(_rows(schema, ""))


def _rows(schema: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in groups(schema):
        if "default" in value:
            yield f"| `{prefix}{name}` | `{json.dumps(value['default'])}` | {value['description']} |\n"
        else:
            yield from _rows(value, f"{prefix}{name}.")


def readme(text: str, schema: Mapping[str, Any]) -> str:
    """The README with the table of now between the two marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no place for the table of values: it goes between {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}{table(schema)}{END}{after}"


def generate() -> dict[Path, str]:
    """Path -> content of all that is generated."""
    files = {}
    for chart in CHARTS:
        folder = HERE / chart
        schema = json.loads((folder / "values.schema.json").read_text(encoding="utf-8"))
        files[folder / "values.yaml"] = values_yaml(schema)
        files[folder / "README.md"] = readme((folder / "README.md").read_text(encoding="utf-8"), schema)
    return files


def main() -> int:
    """Generate or check."""
    parser = argparse.ArgumentParser(description="Generate values.yaml and the tables of values of the charts.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    return write_or_check(generate(), parser.parse_args().check)


if __name__ == "__main__":
    raise SystemExit(main())
