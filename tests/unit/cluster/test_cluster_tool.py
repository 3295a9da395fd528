# SPDX-License-Identifier: Apache-2.0
"""The parts of the cluster tool that decide things."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests import cluster
from tests.cluster import binaries, images
from tests.cluster.certificates import kubeconfig
from tests.cluster.processes import Daemons


def test_programs_are_built_anew_when_a_version_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = binaries.cache_key()
    assert binaries.cache_key() == before
    monkeypatch.setattr(binaries, "INSTALLED", (*binaries.INSTALLED[:-1], ("github.com/coredns/coredns", "v0.0.0")))
    assert binaries.cache_key() != before


def test_a_pid_that_another_process_has_now_is_not_ours(tmp_path: Path) -> None:
    daemons = Daemons(tmp_path)
    daemons.start("sleeper", [sys.executable, "-c", "input()"], path="/usr/bin:/bin")
    daemons.stop(["sleeper"])
    assert daemons.names() == []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / "sleeper.json").write_text(json.dumps({"pid": other.pid, "started": "another-boot:1"}))
        assert daemons.pid("sleeper") is None
        daemons.stop(["sleeper"])
        assert other.poll() is None, "a process that is not ours is left alone"
        other.kill()


def test_a_given_cluster_needs_images_that_it_can_pull(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.touch()
    monkeypatch.setenv("KUBEAGENTS_TEST_KUBECONFIG", str(config))
    for name in images.NAMES:
        monkeypatch.delenv(f"KUBEAGENTS_TEST_{name.upper()}_IMAGE", raising=False)
    with pytest.raises(cluster.ClusterUnavailableError, match="KUBEAGENTS_TEST_RUNTIME_IMAGE"):
        cluster.ensure()


def test_a_given_kubeconfig_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEAGENTS_TEST_KUBECONFIG", "/nowhere/config")
    with pytest.raises(cluster.ClusterUnavailableError, match="does not exist"):
        cluster.ensure()


def test_a_kubeconfig_has_everything_inside() -> None:
    made = kubeconfig(server="https://x", authority=b"a", certificate=b"c", key=b"k")
    assert made["clusters"] == [
        {"name": "kubeagents-test", "cluster": {"server": "https://x", "certificate-authority-data": "YQ=="}}
    ]


def test_the_pause_image_is_a_complete_oci_archive(tmp_path: Path) -> None:
    program, archive = tmp_path / "pause", tmp_path / "pause.tar"
    program.write_bytes(b"program")
    images.pause_archive(program, archive)
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        index = tar.extractfile("index.json")
        assert index is not None
        entry = json.load(index)["manifests"][0]
    assert {"oci-layout", "index.json", f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}"} <= names
    assert len(names) == 5, "layout, index, manifest, configuration, layer"
