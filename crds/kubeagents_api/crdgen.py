# SPDX-License-Identifier: Apache-2.0
"""Pydantic models -> CustomResourceDefinitions with structural schemas.

A structural schema knows no `$ref`, no `anyOf` for nullability and no `const`. Everything is inlined, `X | None`
becomes a property that may be absent, and rules become `x-kubernetes-validations`.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic.fields import FieldInfo

from kubeagents_api.conditions import Condition
from kubeagents_api.generated import write_or_check
from kubeagents_api.kinds import KINDS, NAME_MESSAGE, NAME_PATTERN, Column, Kind
from kubeagents_api.labels import GROUP, VERSION
from kubeagents_api.model import ApiModel

HEADER = "# Generated from crds/kubeagents_api by `make generate`. Do not edit.\n"

INT_OR_STRING = "x-kubernetes-int-or-string"
ANY_JSON = "x-kubernetes-preserve-unknown-fields"

_KEPT = (
    "type",
    "format",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    status = _object(kind.status, defaults=False)
    spec = _object(kind.spec, defaults=True)
    subresources: dict[str, Any] = {"status": {}}
    if kind.scalable:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    schema: dict[str, Any] = {
        "type": "object",
        "description": kind.description,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            # With -1 an object that no operator has seen yet is "in progress" for kstatus, not "done".
            "status": {**status, "default": {"observedGeneration": -1}},
        },
        # The names of the children are made from the object's name and must stay valid labels.
        "x-kubernetes-validations": [
            {"rule": f"self.metadata.name.matches('{NAME_PATTERN}')", "message": NAME_MESSAGE}
        ],
    }
    if "required" in spec:
        schema["required"] = ["spec"]
    else:
        spec["default"] = {}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name, "labels": {"app.kubernetes.io/part-of": "kubeagents"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short],
                "categories": ["kubeagents"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": subresources,
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                }
            ],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    out: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.priority:
        out["priority"] = column.priority
    if column.description:
        out["description"] = column.description
    return out


def _object(model: type[ApiModel], *, defaults: bool) -> dict[str, Any]:
    """The structural schema of a model. `defaults`: whether the API server fills in what is missing."""
    flat = model.model_json_schema(by_alias=True, ref_template="{model}", mode="validation")
    properties: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        alias = field.alias or name
        properties[alias] = _property(field, flat["properties"][alias], flat.get("$defs", {}), defaults=defaults)
    out: dict[str, Any] = {"type": "object", "properties": properties}
    if model.__doc__:
        out["description"] = _one_line(model.__doc__)
    if flat.get("required"):
        out["required"] = sorted(flat["required"])
    if model.rules:
        out["x-kubernetes-validations"] = [{"rule": r.cel, "message": r.message} for r in model.rules]
    return out


def _property(
    field: FieldInfo, schema: Mapping[str, Any], definitions: Mapping[str, Any], *, defaults: bool
) -> dict[str, Any]:
    schema = _without_null(schema)
    out = _typed(field.annotation, schema, definitions, defaults=defaults)
    if field.description:
        out["description"] = _one_line(field.description)
    if defaults and not field.is_required():
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, ApiModel):
            # Written out in full: the API server holds rules against a default before it fills in what is inside.
            out["default"] = default.to_wire()
        elif default is not None and default != []:
            out["default"] = default
    return out


def _typed(
    annotation: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any], *, defaults: bool
) -> dict[str, Any]:
    model = _model_in(annotation)
    if schema.get("type") == "array":
        out = {k: schema[k] for k in _KEPT if k in schema}
        if model is not None:
            out["items"] = _object(model, defaults=defaults)
        else:
            out["items"] = _typed(None, schema["items"], definitions, defaults=defaults)
        if model is Condition:
            out["x-kubernetes-list-type"] = "map"
            out["x-kubernetes-list-map-keys"] = ["type"]
        return out
    if model is not None:
        return _object(model, defaults=defaults)
    if schema.get("type") == "object":
        return {
            "type": "object",
            "additionalProperties": _typed(None, schema["additionalProperties"], definitions, defaults=defaults),
        }
    if schema.get(INT_OR_STRING):
        return {INT_OR_STRING: True}
    if schema.get(ANY_JSON):
        return {ANY_JSON: True, "nullable": True}
    out = {k: schema[k] for k in _KEPT if k in schema}
    if "exclusiveMinimum" in schema:
        out["minimum"], out["exclusiveMinimum"] = schema["exclusiveMinimum"], True
    if out.get("type") == "integer":
        out["format"] = "int32" if out.get("maximum", 0) < 2**31 else "int64"
    if "type" not in out:
        raise TypeError(f"no structural schema for {annotation!r}: {schema!r}")
    return out


def _model_in(annotation: Any) -> type[ApiModel] | None:
    """The model that an annotation such as `X | None` or `list[X]` is about."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _without_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """`anyOf: [X, null]` -> X: in a structural schema an absent property says the same."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if not options:
        return schema
    if len(options) > 1:
        raise TypeError(f"no structural schema for a union: {schema!r}")
    return {**{k: v for k, v in schema.items() if k != "anyOf"}, **options[0]}


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Dumper(yaml.SafeDumper):
    """Indents list items, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


def to_yaml(document: Mapping[str, Any]) -> str:
    """YAML as it is committed: stable order, no aliases, no line folding."""
    _Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
    return yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def generate() -> dict[str, str]:
    """File name -> content of every CRD."""
    return {f"{kind.crd_name}.yaml": HEADER + to_yaml(crd(kind)) for kind in KINDS}


def main() -> int:
    """Write the CRDs into a folder, or with --check say which ones are stale."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="where the CRD files belong")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    arguments = parser.parse_args()
    files = {folder / name: text for folder in arguments.folder for name, text in generate().items()}
    return write_or_check(files, arguments.check)


if __name__ == "__main__":
    raise SystemExit(main())
