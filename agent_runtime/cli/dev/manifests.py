# SPDX-License-Identifier: Apache-2.0
"""Manifest files -> validated objects. Every fault names its file, document and field, and all are told at once."""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.kinds import Manifest, parse
from kubeagents_api.labels import GROUP

_SUFFIXES = (".yaml", ".yml", ".json")

Key = tuple[str, str]
"""Namespace and name."""


class ManifestsError(Exception):
    """The manifests cannot be run as they are. `problems` has one sentence for each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Source:
    """Where an object was read."""

    path: Path
    document: int
    """Counted from 1."""
    line: int

    def __str__(self) -> str:
        return f"{self.path}, document {self.document} (line {self.line})"


@dataclass(frozen=True)
class Object:
    """One of our custom resources."""

    source: Source
    manifest: Manifest

    @property
    def key(self) -> Key:
        return (self.manifest.namespace, self.manifest.name)


@dataclass(frozen=True)
class Data:
    """A ConfigMap or Secret. Its content is never printed."""

    source: Source
    content: Mapping[str, bytes] = field(repr=False)


@dataclass
class Manifests:
    """Everything that was read, by kind, namespace and name."""

    objects: dict[str, dict[Key, Object]] = field(
        default_factory=lambda: {"Agent": {}, "CentralAgent": {}, "TaskQueue": {}}
    )
    config_maps: dict[Key, Data] = field(default_factory=dict)
    secrets: dict[Key, Data] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    """Documents of kinds that only a cluster knows what to do with."""


def load(paths: Iterable[Path], *, namespace: str) -> Manifests:
    """Read files, and the .yaml, .yml and .json files of folders (not of their subfolders).

    `namespace` is taken where a document names none. Raises ManifestsError with every fault found.
    """
    found = Manifests()
    problems: list[str] = []
    for path in _files(paths, problems):
        for source, body in _documents(path, problems):
            try:
                _add(found, source, body, namespace=namespace)
            except InvalidManifestError as error:
                problems.append(f"{source}: {error}")
    if problems:
        raise ManifestsError(problems)
    return found


def _files(paths: Iterable[Path], problems: list[str]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
            if not files:
                problems.append(f"{path}: the folder has no {', '.join(_SUFFIXES)} files")
        elif path.exists():
            files = [path]
        else:
            problems.append(f"{path}: no such file or folder")
            continue
        for file in files:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _documents(path: Path, problems: list[str]) -> Iterator[tuple[Source, Any]]:
    number = 1
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # noqa: S101 - check_node has said so
            body = loader.construct_document(node)
            source = Source(path, number, node.start_mark.line + 1)
            if isinstance(body, dict) and body.get("kind") == "List" and isinstance(body.get("items"), list):
                yield from ((source, item) for item in body["items"])
            elif body is not None:
                yield source, body
            number += 1
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: is not UTF-8 text: {error}")
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        problems.append(f"{path}, document {number}{line}: is not YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        problems.append(f"{path}, document {number}: is not YAML: {error}")


def _add(found: Manifests, source: Source, body: Any, *, namespace: str) -> None:
    if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
        raise InvalidManifestError("is not a Kubernetes manifest: it needs apiVersion, kind and metadata")
    kind, api_version, metadata = body["kind"], str(body.get("apiVersion")), body.get("metadata")
    if not isinstance(metadata, dict):
        raise InvalidManifestError(f"a {kind} has no metadata")
    if api_version.split("/")[0] == GROUP:
        manifest = parse(body, default_namespace=namespace)
        item = Object(source, manifest)
        _put(found.objects[manifest.kind.kind], item.key, item, what=f'{kind} "{manifest.name}"')
    elif kind in ("ConfigMap", "Secret") and api_version == "v1":
        if not isinstance(metadata.get("name"), str):
            raise InvalidManifestError(f"a {kind} has no metadata.name")
        key = (str(metadata.get("namespace") or namespace), metadata["name"])
        what = f'{kind} "{key[1]}"'
        read = _secret if kind == "Secret" else _config_map
        _put(found.secrets if kind == "Secret" else found.config_maps, key, Data(source, read(body, what)), what=what)
    else:
        found.ignored.append(f'{source}: {kind} "{metadata.get("name", "(no name)")}"')


def _put(table: dict[Key, Any], key: Key, item: Any, *, what: str) -> None:
    if key in table:
        raise InvalidManifestError(
            f'{what} is there twice in namespace "{key[0]}": first in {table[key].source}; remove one of them'
        )
    table[key] = item


def _config_map(body: Mapping[str, Any], what: str) -> dict[str, bytes]:
    return {
        **{key: value.encode() for key, value in _texts(body, "data", what)},
        **{
            key: _decoded(value, f"{what} is invalid: binaryData.{key}")
            for key, value in _texts(body, "binaryData", what)
        },
    }


def _secret(body: Mapping[str, Any], what: str) -> dict[str, bytes]:
    return {
        **{key: _decoded(value, f"{what} is invalid: data.{key}") for key, value in _texts(body, "data", what)},
        **{key: value.encode() for key, value in _texts(body, "stringData", what)},
    }


def _texts(body: Mapping[str, Any], name: str, what: str) -> Iterator[tuple[str, str]]:
    section = body.get(name) or {}
    if not isinstance(section, dict):
        raise InvalidManifestError(f"{what} is invalid: {name} must map keys to text")
    for key, value in section.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidManifestError(f"{what} is invalid: {name}.{key} must be text: put it in quotes")
        if "/" in key or key in ("", ".", ".."):
            raise InvalidManifestError(f"{what} is invalid: {name} has the key {key!r}, which cannot be a file name")
        yield key, value


def _decoded(value: str, where: str) -> bytes:
    try:
        return base64.b64decode(value, validate=False)
    except binascii.Error:
        # The value stays out of the message: it may be a secret.
        raise InvalidManifestError(f"{where} is not base64; a Secret takes plain text under stringData") from None
