# SPDX-License-Identifier: Apache-2.0
"""Digests of what the operator wants, and the part of a live object that is the operator's.

What the operator owns of an object is said by the object itself (`ownership`). Cut out of it, it is what was written,
with the API server's defaults.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import orjson

from kubeagents_api.labels import FIELD_MANAGER

_QUANTITY = re.compile(r"^([+-]?[0-9.]+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|)$")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_FACTORS = {
    **{suffix: Fraction(1024) ** power for power, suffix in enumerate(_BINARY)},
    **{suffix: Fraction(1000) ** (power - 3) for power, suffix in enumerate(_DECIMAL)},
}


def fingerprint(value: Any) -> bytes:
    """16 bytes that are equal for equal values. The order of keys and that of list items which are objects is
    irrelevant: the API server merges such lists by key."""
    return hashlib.blake2b(_canonical(value), digest_size=16).digest()


def of_desired(manifest: Mapping[str, Any]) -> bytes:
    """The fingerprint of an object as the operator writes it."""
    body = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
    body["metadata"] = {k: v for k, v in manifest["metadata"].items() if k not in ("name", "namespace")}
    return fingerprint(body)


def cut_out(body: Mapping[str, Any]) -> Any:
    """The fields of a live object that the operator wrote and that nobody has changed since."""
    trees = [
        entry["fieldsV1"]
        for entry in body["metadata"].get("managedFields") or ()
        if entry.get("manager") == FIELD_MANAGER and "subresource" not in entry
    ]
    return _cut(body, functools.reduce(_union, trees)) if trees else {}


def _union(one: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    """What either tree owns. One without children owns the value as a whole."""
    if not one or not other:
        return {}
    shared = one.keys() & other.keys()
    return {**one, **other, **{path: _union(one[path], other[path]) for path in shared if path != "."}}


def digest(texts: Iterable[str | bytes]) -> str:
    """A short word that changes with the texts."""
    hashed = hashlib.blake2b(digest_size=10)
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        hashed.update(len(data).to_bytes(8, "big"))
        hashed.update(data)
    return hashed.hexdigest()


def quantity(text: str) -> str:
    """A Kubernetes quantity in the form in which the API server stores it: `1000m` is `1`, `0.5Gi` is `512Mi`."""
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity: write a number such as 500m, 2 or 1Gi")
    number, suffix = match.groups()
    value = Fraction(number) * _FACTORS[suffix]
    if suffix in _BINARY[1:] and value.denominator == 1 and abs(value) >= 1024:
        return _largest(value, _BINARY)
    return _largest(value, _DECIMAL)


def _largest(value: Fraction, suffixes: tuple[str, ...]) -> str:
    """The shortest whole number with the greatest suffix that loses nothing."""
    if value == 0:
        return "0"
    for suffix in reversed(suffixes):
        scaled = value / _FACTORS[suffix]
        if scaled.denominator == 1:
            return f"{scaled.numerator}{suffix}"
    nano = value / _FACTORS["n"]
    return f"{-(-nano.numerator // nano.denominator)}n"  # rounded up, as the API server does


def _canonical(value: Any) -> bytes:
    return orjson.dumps(_ordered(value), option=orjson.OPT_SORT_KEYS)


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _ordered(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_ordered(item) for item in value]
        if items and isinstance(items[0], dict):
            items.sort(key=lambda item: orjson.dumps(item, option=orjson.OPT_SORT_KEYS))
        return items
    return value


def _cut(value: Any, fields: Mapping[str, Any]) -> Any:
    """`fields` is a FieldsV1 tree: `f:name` is a field, `k:{...}` a list item by its key, `v:...` one by its value,
    `.` the thing itself. A tree without children owns the value as a whole."""
    children = {path: below for path, below in fields.items() if path != "."}
    if not children:
        return {} if "." in fields and isinstance(value, Mapping) else value
    if isinstance(value, Mapping):
        return {
            path[2:]: _cut(value[path[2:]], below)
            for path, below in children.items()
            if path.startswith("f:") and path[2:] in value
        }
    if isinstance(value, list):
        picks = [(path[:2], orjson.loads(path[2:]), below) for path, below in children.items() if path[:2] in _PICKS]
        return [cut for item in value for pick in picks for cut in _cut_item(item, *pick)]
    return value


_PICKS = ("v:", "k:")


def _cut_item(item: Any, how: str, wanted: Any, below: Mapping[str, Any]) -> list[Any]:
    """What one path takes of one item of a list. The order of the items stays the live one."""
    if how == "v:":
        return [item] if item == wanted else []
    return [_cut(item, below)] if all(item.get(key, part) == part for key, part in wanted.items()) else []
