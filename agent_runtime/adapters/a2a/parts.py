# SPDX-License-Identifier: Apache-2.0
"""Between the parts of messages and artifacts, and JSON.

A single `data` part is its value, a single `text` part `{"text": …}`. Anything else, such as files or several parts, is
`{"parts": [{"text": …}, {"data": …}, {"raw": <base64>, "filename": …, "mediaType": …}, {"url": …}]}`. The same way
back, so that an agent can answer with parts of every kind.

The numbers of a `data` part are doubles. Whole ones become integers again. What would change on its way, such as an
integer over 2^53, travels as a `text` part of JSON, which changes nothing.
"""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from a2a.types import Message, Part
from google.protobuf import struct_pb2

from kubeagents_api.errors import InvalidTaskError

JSON: Final = "application/json"
TEXT: Final = "text/plain"

_EXACT: Final = 2**53
"""Integers up to there are exact as doubles."""
_DEEPEST: Final = 24
"""Levels of a data part: Protocol Buffers refuse messages of over a hundred, and take three for each."""
_CONTENT: Final = ("text", "raw", "url", "data")
_NAMES: Final = {"text", "raw", "url", "data", "filename", "mediaType"}


def payload(message: Message) -> Any:
    """What a task gets of a message. Raises InvalidTaskError."""
    parts = [_read(part, f"message.parts[{number}]") for number, part in enumerate(message.parts)]
    if len(parts) == 1:
        (part,) = parts
        if "data" in part:
            return part["data"]
        if part.keys() == {"text"}:
            return part
    return {"parts": parts}


def parts_of(value: Any) -> list[Part]:
    """A payload or result as parts."""
    if isinstance(value, dict):
        if value.keys() == {"text"} and isinstance(value["text"], str):
            return [Part(text=value["text"])]
        if value.keys() == {"parts"} and _are_parts(value["parts"]):
            return [_written(part) for part in value["parts"]]
    if isinstance(value, str):
        return [Part(text=value)]
    return [_data(value)]


def json_of(value: struct_pb2.Value, field: str, *, depth: int = 0) -> Any:
    """A value as JSON. Raises InvalidTaskError for what is no JSON, or too deep."""
    if depth > _DEEPEST:
        raise InvalidTaskError(f"{field} is deeper than {_DEEPEST} levels", field=field)
    match value.WhichOneof("kind"):
        case "struct_value":
            return json_object(value.struct_value, field, depth=depth)
        case "list_value":
            return [json_of(item, field, depth=depth + 1) for item in value.list_value.values]
        case "number_value":
            return _number(value.number_value, field)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def json_object(struct: struct_pb2.Struct, field: str, *, depth: int = 0) -> dict[str, Any]:
    """The same for an object, such as metadata."""
    return {name: json_of(item, field, depth=depth + 1) for name, item in struct.fields.items()}


def struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    """An object, such as metadata. What is exact in no double is rounded."""
    found = struct_pb2.Struct()
    for name, item in value.items():
        found.fields[name].CopyFrom(_value(item))
    return found


def _read(part: Part, field: str) -> dict[str, Any]:
    content = part.WhichOneof("content")
    found: dict[str, Any]
    match content:
        case "text":
            found = {"text": part.text}
        case "raw":
            found = {"raw": base64.b64encode(part.raw).decode()}
        case "url":
            found = {"url": part.url}
        case "data":
            return {"data": json_of(part.data, field)}
        case _:
            raise InvalidTaskError(f"{field} is empty: give it one of {', '.join(_CONTENT)}", field=field)
    if part.filename:
        found["filename"] = part.filename
    if part.media_type and not (content == "text" and part.media_type == TEXT):
        found["mediaType"] = part.media_type
    return found


def _number(number: float, field: str) -> int | float:
    if not math.isfinite(number):
        raise InvalidTaskError(f"{field} has a number that is not in JSON: {number}", field=field)
    return int(number) if number.is_integer() and abs(number) <= _EXACT else number


def _are_parts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_part(part) for part in value)


def _is_part(part: Any) -> bool:
    if not isinstance(part, dict) or not part.keys() <= _NAMES or sum(name in part for name in _CONTENT) != 1:
        return False
    if any(not isinstance(item, str) for name, item in part.items() if name != "data"):
        return False
    if "raw" in part:
        try:
            base64.b64decode(part["raw"], validate=True)
        except (binascii.Error, ValueError):
            return False
    return True


def _written(part: Mapping[str, Any]) -> Part:
    if "data" in part:
        found = _data(part["data"])
    elif "raw" in part:
        found = Part(raw=base64.b64decode(part["raw"]))
    elif "url" in part:
        found = Part(url=part["url"])
    else:
        found = Part(text=part["text"])
    if "filename" in part:
        found.filename = part["filename"]
    if "mediaType" in part and not found.media_type:
        found.media_type = part["mediaType"]
    return found


def _data(value: Any) -> Part:
    if _fits(value):
        return Part(data=_value(value))
    return Part(text=json.dumps(value, ensure_ascii=False, separators=(",", ":")), media_type=JSON)


def _fits(value: Any, depth: int = 0) -> bool:
    """Whether nothing changes on its way through a data part."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        return all(_fits(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return all(_fits(item, depth + 1) for item in value)
    return not isinstance(value, int) or abs(value) <= _EXACT


def _value(value: Any) -> struct_pb2.Value:
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case dict():
            return struct_pb2.Value(struct_value=struct(value))
        case _:
            items = [_value(item) for item in cast("Iterable[Any]", value)]
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))
