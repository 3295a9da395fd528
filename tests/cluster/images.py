# SPDX-License-Identifier: Apache-2.0
"""Images without a registry: the base from Debian packages, ours by the same Dockerfile that everybody uses."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

from tests.cluster.binaries import cache_folder
from tests.cluster.errors import ClusterError

ROOT = Path(__file__).parents[2]
PAUSE = "localhost/pause:1"
BASE = "localhost/kubeagents-base:1"
PREFIX = "localhost/"
NAMES = ("runtime", "operator", "redis")
INPUTS = ("images", "crds/kubeagents_api", "operator", "agent_runtime", "pyproject.toml", "uv.lock", "README.md")
"""What the images are made from."""


def references(tag: str) -> dict[str, str]:
    """What our images are called in the cluster. The tag is of their content, so that a new one rolls what runs."""
    return {name: f"{PREFIX}kubeagents-{name}:{tag}" for name in NAMES}


def content_tag() -> str:
    """Changes whenever the images would."""
    digest = hashlib.sha256()
    for entry in INPUTS:
        top = ROOT / entry
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def build_with_docker(tag: str) -> None:
    """Our images in the Docker engine, from the base image that everybody uses."""
    _build_all(tag, BUILDER="docker")


def _build_all(tag: str, **settings: str) -> None:
    print("Building the images (10 s; about 2 minutes when dependencies changed)", flush=True)
    environment = {**os.environ, "TAG": tag, "PREFIX": PREFIX, **settings}
    command = [str(ROOT / "images/build.sh"), *NAMES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"images/build.sh failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def build(archives: Path, tag: str) -> list[Path]:
    """Our images as OCI archives. Older builds are removed, or they would fill the disk."""
    print("Making a base image from Debian packages, if there is none yet (about a minute)", flush=True)
    _run(ROOT / "images/base.sh", "buildah", BASE)
    _build_all(tag, BUILDER="buildah", BASE=BASE)
    current = references(tag)
    listed = _run("buildah", "images", "--format", "{{.Name}}:{{.Tag}}").split()
    kept = {*current.values(), BASE}
    old = [image for image in listed if image.startswith(f"{PREFIX}kubeagents-") and image not in kept]
    if old:
        _run("buildah", "rmi", "--force", *old)
    return [_pack(image, archives) for image in current.values()]


def build_other(folder: Path, image: str, *, runtime: str, builder: str) -> None:
    """A user's image, by his Dockerfile, on top of our runtime image."""
    arguments = ["--build-arg", f"RUNTIME_IMAGE={runtime}", "--tag", image]
    if builder == "docker":
        _run("docker", "build", *arguments, folder)
        return
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    trust = ["--volume", f"{certificates}:{certificates}:ro", "--build-arg", f"PIP_CERT={certificates}"]
    how = ["--isolation", "oci", "--network", "host", "--storage-driver", "overlay"]
    _run("buildah", "build", *arguments, *trust, *how, folder)


def pack(image: str) -> Path:
    """An image of buildah's as an OCI archive."""
    return _pack(image, cache_folder() / "images")


def _pack(image: str, archives: Path) -> Path:
    archives.mkdir(parents=True, exist_ok=True)
    archive = archives / f"{image.rpartition('/')[2].partition(':')[0]}.tar"
    archive.unlink(missing_ok=True)
    _run("buildah", "push", "--quiet", image, f"oci-archive:{archive}:{image}")
    return archive


def pause_archive(program: Path, archive: Path) -> None:
    """Pack a static program as an OCI image, by hand: one layer with one file."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        info = tarfile.TarInfo("pause")
        info.mode, info.size = 0o755, program.stat().st_size
        with program.open("rb") as file:
            tar.addfile(info, file)
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    layer_part = blob(layer.getvalue(), "layer.v1.tar")
    config = {
        "architecture": "arm64" if os.uname().machine == "aarch64" else "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_part["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [layer_part],
    }
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": PAUSE, "org.opencontainers.image.ref.name": PAUSE}
    with tarfile.open(archive, "w") as tar:
        files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        files |= {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(map(str, command[:4]))} … failed:\n{done.stderr[-3000:]}")
    return done.stdout
