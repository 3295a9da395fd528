# SPDX-License-Identifier: Apache-2.0
"""Reference pages from the models: every field with its type, default and description; conditions and reasons."""

import argparse
import ast
import inspect
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from kubeagents_api import conditions
from kubeagents_api.crdgen import ANY_JSON, INT_OR_STRING, crd
from kubeagents_api.generated import write_or_check
from kubeagents_api.kinds import KINDS, Kind
from kubeagents_api.labels import API_VERSION

HEADER = "<!-- Generated from crds/kubeagents_api by `make generate`. Do not edit. -->\n\n"


def api_page() -> str:
    """The reference of all kinds: fields, rules, columns."""
    parts = [
        HEADER,
        f"# API reference: `{API_VERSION}`\n\n",
        "The same text is in `kubectl explain`. Fields without a default are unset unless you set them; "
        "**required** ones must be set.\n",
    ]
    for kind in KINDS:
        parts.append(_kind_section(kind))
    return "".join(parts)


def _kind_section(kind: Kind) -> str:
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [
        f"\n## {kind.kind}\n\n{kind.description} Short name `{kind.short}`.\n\n",
        "### spec\n\n| field | type | default | meaning |\n|---|---|---|---|\n",
        *_rows(schema["properties"]["spec"]),
        "\n### status\n\n| field | type | meaning |\n|---|---|---|\n",
        *(
            f"| `{name}` | {_type(field)} | {_cell(field.get('description', ''))} |\n"
            for name, field in schema["properties"]["status"]["properties"].items()
        ),
        "\n### Columns of `kubectl get`\n\n| column | shows | |\n|---|---|---|\n",
        *(
            f"| {column.name.upper()} | {_cell(column.description or 'Age of the object.')} "
            f"| {'`-o wide`' if column.priority else ''} |\n"
            for column in kind.columns
        ),
    ]
    rules = list(_rules(schema["properties"]["spec"], "spec"))
    if rules:
        lines.append("\n### Rules across fields\n\n")
        lines += [f"- `{path}`: {message}\n" for path, message in rules]
    return "".join(lines)


def _rows(schema: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        default = field.get("default")
        shown = "**required**" if name in required else "" if default in (None, {}) else f"`{_plain(default)}`"
        yield f"| `{path}` | {_type(field)} | {shown} | {_cell(field.get('description', ''))} |\n"
        if "properties" in field:
            yield from _rows(field, f"{path}.")
        elif "properties" in field.get("items", {}):
            yield from _rows(field["items"], f"{path}[].")


def _rules(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")
        if "items" in field:
            yield from _rules(field["items"], f"{path}.{name}[]")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _type(field: Mapping[str, Any]) -> str:
    if INT_OR_STRING in field:
        return "quantity"
    if ANY_JSON in field:
        return "any JSON"
    if "enum" in field:
        return " or ".join(str(option) for option in field["enum"])
    kind = str(field["type"])
    if kind == "array":
        return f"list of {_type(field['items'])}"
    if kind == "object" and "additionalProperties" in field:
        return f"map of {_type(field['additionalProperties'])}"
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {_plain(low)} to {_plain(high)}"
    return kind


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def conditions_page() -> str:
    """All condition types and reasons with what they mean."""
    return "".join(
        [
            HEADER,
            "# Conditions and reasons\n\n",
            "Types and reasons are API: they are only ever added to. `kubectl wait --for=condition=Ready` works on "
            "every kind; kstatus (Flux, Helm, Argo CD) reads `Ready`, `Reconciling` and `Stalled`.\n\n",
            "## Condition types\n\n| type | when True |\n|---|---|\n",
            *_enum_rows(conditions.ConditionType),
            "\n## Reasons\n\n| reason | meaning |\n|---|---|\n",
            *_enum_rows(conditions.Reason),
        ]
    )


def _enum_rows(enum: type[StrEnum]) -> Iterator[str]:
    """The members with the string literal that follows each of them in the source."""
    tree = ast.parse(inspect.getsource(enum)).body[0]
    if not isinstance(tree, ast.ClassDef):
        raise TypeError(f"{enum!r} is not defined by a class statement")
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
                raise TypeError(f"{enum.__name__}.{statement.targets[0].id} has no docstring")
            member = enum[statement.targets[0].id]
            yield f"| `{member.value}` | {_cell(str(following.value.value))} |\n"


def generate() -> dict[str, str]:
    """File name -> content of every reference page."""
    return {"api.md": api_page(), "conditions.md": conditions_page()}


def main() -> int:
    """Write the reference pages into a folder, or with --check say which ones are stale."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where the pages belong")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is stale")
    arguments = parser.parse_args()
    return write_or_check({arguments.folder / name: text for name, text in generate().items()}, arguments.check)


if __name__ == "__main__":
    raise SystemExit(main())
