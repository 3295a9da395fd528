# SPDX-License-Identifier: Apache-2.0
"""Digests of what the operator wants, and quantities in the form in which the API server stores them."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import orjson

from kubeagents_api.labels import TEMPLATE_HASH

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
    """The fingerprint of an object as the operator writes it.

    A pod template counts by the digest that it carries: that of a version which is read back from the live object has
    the API server's defaults in it, and is the same nevertheless.
    """
    body = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
    body["metadata"] = {k: v for k, v in manifest["metadata"].items() if k not in ("name", "namespace")}
    if (word := _of_template(manifest)) is not None:
        body["spec"] = {**manifest["spec"], "template": word}
    return fingerprint(body)


def _of_template(manifest: Mapping[str, Any]) -> str | None:
    template = manifest.get("spec", {}).get("template", {})
    word: str | None = template.get("metadata", {}).get("annotations", {}).get(TEMPLATE_HASH)
    return word


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
