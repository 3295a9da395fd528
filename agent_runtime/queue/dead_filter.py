# SPDX-License-Identifier: Apache-2.0
"""Which dead tasks are meant."""

from kubeagents_api.task import DeadFilter, TaskRecord, TaskState


def fits(record: TaskRecord, which: DeadFilter) -> bool:
    """Whether it is a dead task for which all that the filter sets holds."""
    died = record.finished_at
    return (
        record.state is TaskState.DEAD
        and (which.ids is None or record.id in which.ids)
        and which.type in (None, record.type)
        and which.agent in (None, record.agent)
        and which.tenant in (None, record.tenant)
        and which.code in (None, record.failures[-1].code if record.failures else None)
        and which.worker in (None, record.worker)
        and (which.before is None or (died is not None and died < which.before))
        and (which.after is None or (died is not None and died >= which.after))
    )
