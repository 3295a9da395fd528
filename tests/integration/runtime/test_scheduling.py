# SPDX-License-Identifier: Apache-2.0
"""Schedules with real processes: two that lead, one after the other, and a schedule that can never fire."""

import signal
from datetime import datetime
from typing import Any

from kubeagents_api.schedule import Schedule, ScheduledTask
from tests.integration.runtime.conftest import System, final
from tests.support.eventually import eventually
from tests.support.runtime_process import RuntimeProcess

EVERY_SECOND = Schedule(name="tick", every_seconds=1, task=ScheduledTask(type="beat", payload={"n": 1}))


def submitted(central: RuntimeProcess) -> list[str]:
    """The tasks that schedules have submitted, in order."""
    events = central.get("/v1/queues/main/events", limit=1000).json()["events"]
    return [event["task"] for event in events if event["kind"] == "submitted"]


def at_least(central: RuntimeProcess, count: int) -> list[str]:
    """The same, once there are so many."""

    def look() -> list[str]:
        found = submitted(central)
        assert len(found) >= count, found
        return found

    return eventually(look, what=f"{count} tasks of schedules")


def seconds(task_id: str) -> float:
    return datetime.strptime(task_id.partition(".")[2], "%Y%m%dT%H%M%S%z").timestamp()


def leader(system: System, instance: str, *schedules: Schedule) -> RuntimeProcess:
    """A process that leads, as `alone` lets every process do: several of them are what must do no harm."""
    return system.central(instance=instance, schedules={"main": list(schedules)})


def test_a_schedule_submits_tasks_that_agents_do(system: System) -> None:
    system.agent("handlers:about").ready()
    central = leader(system, "hub-2", EVERY_SECOND).ready()
    first = eventually(lambda: submitted(central), what="it has fired")[0]
    assert final(central, first)[0]["result"]["type"] == "beat"
    (shown,) = central.get("/v1/queues/main/schedules").json()
    assert (shown["name"], shown["everySeconds"], shown["suspend"]) == ("tick", 1, False)
    assert shown["lastTask"] in submitted(central)
    assert shown["nextDueAt"] > shown["lastDueAt"]
    (status,) = central.get("/v1/status").json()["queues"]
    assert [schedule["name"] for schedule in status["schedules"]] == ["tick"]
    assert 'kubeagents_schedule_fired_total{queue="main",schedule="tick"}' in central.get("/metrics").text


def test_two_that_lead_at_once_fire_each_due_time_once(system: System) -> None:
    pair = [leader(system, f"hub-{number}", EVERY_SECOND) for number in (2, 3)]
    for central in pair:
        central.ready()
    ids = at_least(pair[0], 5)
    assert len(set(ids)) == len(ids)
    times = [seconds(found) for found in ids]
    assert times == [times[0] + number for number in range(len(times))], "none is left out either"


def test_the_next_leader_goes_on_where_the_first_one_was_killed(system: System) -> None:
    every = Schedule(name="tick", every_seconds=2, starting_deadline_seconds=60)
    first = leader(system, "hub-2", every).ready()
    eventually(lambda: submitted(first), what="the first leader has fired")
    first.signal(signal.SIGKILL)
    first.exit_code()
    second = leader(system, "hub-3", every).ready()
    ids = at_least(second, len(submitted(second)) + 2)
    assert len(set(ids)) == len(ids)
    times = [seconds(found) for found in ids]
    assert times == sorted(times)
    assert all(moment % 2 == 0 for moment in times)


def test_a_schedule_that_can_never_fire_is_shown_and_does_not_stop_the_others(system: System) -> None:
    bad: list[Any] = [
        Schedule(name="february", cron="0 0 30 2 *"),
        Schedule(name="mars", cron="0 0 * * *", time_zone="Mars/Olympus"),
    ]
    central = leader(system, "hub-2", *bad, EVERY_SECOND).ready()
    eventually(lambda: submitted(central), what="the good one has fired")
    shown = {found["name"]: found for found in central.get("/v1/queues/main/schedules").json()}
    assert "the day-of-month of cron '0 0 30 2 *' is not valid" in shown["february"]["fault"]
    assert "the time zone 'Mars/Olympus' is not known here" in shown["mars"]["fault"]
    assert "nextDueAt" not in shown["mars"]
    assert "fault" not in shown["tick"]
    assert 'kubeagents_schedule_faulty{queue="main",schedule="mars"} 1.0' in central.get("/metrics").text


def test_a_queue_without_schedules_has_none(system: System) -> None:
    assert system.central().ready().get("/v1/queues/main/schedules").json() == []
