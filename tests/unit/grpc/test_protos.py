# SPDX-License-Identifier: Apache-2.0
"""The contract over gRPC: generated code that is up to date, and words that mean what they mean elsewhere."""

from agent_runtime.protos.__main__ import generated
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from kubeagents_api.task import TaskState


def test_the_committed_code_is_what_the_proto_generates() -> None:
    stale = [path.name for path, text in generated().items() if path.read_text(encoding="utf-8") != text]

    assert not stale, f"{stale}: run `make generate` and commit the result"


def test_every_state_of_a_task_has_a_number() -> None:
    names = {name.removeprefix("TASK_STATE_").lower() for name in pb.TaskState.keys()}  # noqa: SIM118

    assert names - {"unspecified"} == {state.value for state in TaskState}
