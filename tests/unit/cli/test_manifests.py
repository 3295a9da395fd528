# SPDX-License-Identifier: Apache-2.0
import base64
from pathlib import Path

import pytest

from agent_runtime.cli.dev.manifests import Manifests, ManifestsError, load
from tests.unit.cli.manifest_texts import AGENT, CODE, QUEUE, REDIS, documents


def read(folder: Path, text: str) -> Manifests:
    (folder / "all.yaml").write_text(text)
    return load([folder], namespace="default")


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ManifestsError) as caught:
        read(folder, text)
    return caught.value.problems


def test_a_folder_gives_the_documents_of_its_manifest_files_only(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(QUEUE)
    (tmp_path / "a.json").write_text(
        '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"k": "v"}}'
    )
    (tmp_path / "notes.txt").write_text("not: [a manifest")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deeper.yaml").write_text("kind: nonsense")
    found = load([tmp_path], namespace="default")
    assert list(found.objects["TaskQueue"]) == [("default", "tasks")]
    assert found.config_maps[("default", "code")].content == {"k": b"v"}


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "queue.yaml"
    file.write_text(QUEUE)
    assert len(load([file, tmp_path], namespace="default").objects["TaskQueue"]) == 1


def test_the_namespace_of_a_document_goes_before_the_default(tmp_path: Path) -> None:
    text = QUEUE.replace("{name: tasks}", "{name: tasks, namespace: prod}")
    assert list(read(tmp_path, documents(text, QUEUE)).objects["TaskQueue"]) == [
        ("prod", "tasks"),
        ("default", "tasks"),
    ]


def test_the_items_of_a_list_are_documents(tmp_path: Path) -> None:
    item = '{"apiVersion": "kubeagents.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"name": "tasks"}}'
    found = read(tmp_path, f"apiVersion: v1\nkind: List\nitems: [{item}]\n")
    assert list(found.objects["TaskQueue"]) == [("default", "tasks")]


def test_kinds_of_the_cluster_are_ignored_but_told(tmp_path: Path) -> None:
    found = read(tmp_path, documents(QUEUE, "\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"))
    assert found.ignored == [f'{tmp_path}/all.yaml, document 2 (line 6): Deployment "web"']


def test_a_fault_names_file_document_line_object_and_field(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, documents(QUEUE, AGENT.replace("replicas: 2", "replicas: -1")))
    assert problem.startswith(f'{tmp_path}/all.yaml, document 2 (line 6): Agent "echo" is invalid: spec.replicas: ')


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, documents(AGENT.replace("handler", "hander"), QUEUE.replace("tasks", "Tasks")))
    assert len(found) == 2
    assert "spec.hander: Extra inputs are not permitted" in found[0]
    assert "metadata.name must start with a letter" in found[1]


def test_broken_yaml_names_document_and_line(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, QUEUE + "---\na: [1\nb: 2\n")
    assert problem.startswith(f"{tmp_path}/all.yaml, document 2 (line 7): is not YAML: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just text", "is not a Kubernetes manifest"),
        ("kind: Agent\napiVersion: kubeagents.dev/v1alpha1\n", "has no metadata"),
        ("kind: Agent\napiVersion: kubeagents.dev/v9\nmetadata: {name: a}\n", "is none of Agent"),
        ("kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {n: 5}\n", "data.n must be text"),
        ("kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {../x: y}\n", "cannot be a file name"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    [problem] = problems(tmp_path, text)
    assert message in problem


def test_the_same_object_twice_names_both_places(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, documents(QUEUE, QUEUE))
    assert problem == (
        f'{tmp_path}/all.yaml, document 2 (line 6): TaskQueue "tasks" is there twice in namespace "default": '
        f"first in {tmp_path}/all.yaml, document 1 (line 2); remove one of them"
    )


def test_a_secret_is_decoded_and_its_value_is_never_shown(tmp_path: Path) -> None:
    encoded = base64.b64encode(b"s3cret").decode()
    found = read(tmp_path, f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{password: {encoded}}}\n")
    assert found.secrets[("default", "s")].content == {"password": b"s3cret"}
    assert "s3cret" not in repr(found)
    [problem] = problems(tmp_path, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {password: hunter2}\n")
    assert "data.password is not base64" in problem
    assert "hunter2" not in problem


def test_binary_data_of_a_config_map_is_decoded(tmp_path: Path) -> None:
    found = read(tmp_path, CODE + f"binaryData: {{model.bin: {base64.b64encode(bytes(4)).decode()}}}\n")
    assert found.config_maps[("default", "code")].content["model.bin"] == bytes(4)


def test_missing_paths_and_empty_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestsError) as caught:
        load([tmp_path, tmp_path / "nowhere"], namespace="default")
    assert caught.value.problems == [
        f"{tmp_path}: the folder has no .yaml, .yml, .json files",
        f"{tmp_path}/nowhere: no such file or folder",
    ]


def test_secrets_with_plain_text_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, REDIS).secrets[("default", "redis")].content["url"].startswith(b"redis://")
