# SPDX-License-Identifier: Apache-2.0
"""`kubeagents submit`: give tasks to agents."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from agent_runtime.cli import options, times
from agent_runtime.cli.errors import EXIT_USAGE, CliError
from agent_runtime.cli.options import Format, Target, program_name

_WHO = "Who does it, and for whom"
_WHEN = "When"


class ParentFailure(StrEnum):
    """What happens once a task that this one depends on ends without success."""

    FAIL = "fail"
    SKIP = "skip"
    RUN = "run"


def submit(
    payload: Annotated[
        str | None, typer.Argument(metavar="PAYLOAD", help="The task's input: any JSON value.", show_default=False)
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Take the input from a file: one JSON value is one task, JSON Lines are one per line; - is stdin.",
        ),
    ] = None,
    queue: options.Queue = None,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", "-a", metavar="NAME", help="The Agent. [dim]Default: any of the queue.", rich_help_panel=_WHO
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option("--type", "-t", metavar="WORD", help="A word for the handler, to tell kinds of work apart.")
    ] = "",
    priority: Annotated[
        int | None, typer.Option(min=0, max=9, metavar="N", help="9 goes first. [dim]Default: 5.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long one attempt may take. [dim]Default: the queue's."),
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="N", help="Attempts in all. [dim]Default: the queue's.")
    ] = None,
    task_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Name of the task; the same name is refused twice."),
    ] = None,
    capability: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the Agent must be able to do.", rich_help_panel=_WHO)
    ] = None,
    instance: Annotated[
        str | None, typer.Option(metavar="NAME", help="The one agent process, a pod's name.", rich_help_panel=_WHO)
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose task it is; tenants take turns.", rich_help_panel=_WHO)
    ] = None,
    delay: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN", help="How long it waits before the first attempt: 90s, 5m, 2h, 1d.", rich_help_panel=_WHEN
        ),
    ] = None,
    not_before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When the first attempt may begin: 2026-05-01T18:00.", rich_help_panel=_WHEN),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it expires: 2026-05-01T18:00, or 2h from now.", rich_help_panel=_WHEN),
    ] = None,
    depends_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="A task that must end first. May be given several times.", rich_help_panel=_WHEN
        ),
    ] = None,
    on_parent_failure: Annotated[
        ParentFailure | None,
        typer.Option(
            help="What happens if one of them ends without success. [dim]Default: fail.", rich_help_panel=_WHEN
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Name of what is to be done: while a task with it is known, no second one is queued."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for the results and print them; exit 1 if a task failed.")
    ] = False,
    output: options.Output = Format.TABLE,
    *,
    target: Target,
) -> None:
    """Submit one task, or a file of them.

    Without --wait, the ids are printed on stdout, one per line.

    Examples:

        {prog} submit '{"text": "hello"}' --agent echo --wait
        {prog} submit --file tasks.jsonl --priority 9
        seq 100 | {prog} submit --file - --wait -o json
        {prog} submit '"report"' --depends-on invoice-1 --depends-on invoice-2 --deadline 2h
    """
    payloads = _payloads(payload, file)
    if task_id is not None and len(payloads) > 1:
        raise CliError(f"--id names one task, but the input has {len(payloads)}: leave it out", exit_code=EXIT_USAGE)
    if key is not None and len(payloads) > 1:
        raise CliError(
            f"--key would merge all {len(payloads)} tasks of the input into one: leave it out", exit_code=EXIT_USAGE
        )
    common = {
        "id": task_id,
        "queue": queue,
        "agent": agent,
        "capability": capability,
        "instance": instance,
        "tenant": tenant,
        "delaySeconds": None if delay is None else times.seconds("--delay", delay),
        "notBefore": None if not_before is None else times.moment("--not-before", not_before),
        "deadline": None if deadline is None else times.moment("--deadline", deadline),
        "dependsOn": depends_on or None,
        "onParentFailure": None if on_parent_failure is None else on_parent_failure.value.capitalize(),
        "idempotencyKey": key,
        "type": kind or None,
        "priority": priority,
        "timeoutSeconds": timeout,
        "maxAttempts": max_attempts,
    }
    given = {key: value for key, value in common.items() if value is not None}
    tasks = [{**given, "payload": value} for value in payloads]
    _run(tasks, target=target, wait=wait, output=output)


def _run(tasks: list[dict[str, Any]], *, target: Target, wait: bool, output: Format) -> None:
    from agent_runtime.cli.api import Api, batches
    from agent_runtime.cli.output import counting, dump, stderr
    from agent_runtime.cli.server import find_server

    say = stderr()
    with Api(find_server(target)) as api:
        ids: list[str] = []
        try:
            if len(tasks) == 1:
                answer = api.submit(tasks[0])
                ids.append(answer["id"])
            else:
                with counting("submitting", total=len(tasks)) as counter:
                    for batch in batches(tasks):
                        answer = api.submit_batch(batch)
                        ids.extend(answer["ids"])
                        counter.add(len(batch))
        except CliError as error:
            if not ids:
                raise
            raise CliError(f"{error}\n{len(ids)} of {len(tasks)} tasks had been queued before that") from error
        queue = answer["queue"]
        if answer.get("merged") and len(tasks) == 1:
            say.print(f"merged with an earlier task of the same key on queue {queue}", style="yellow")
        else:
            many = f"{len(ids)} tasks are" if len(ids) > 1 else "1 task is"
            state = answer.get("state")
            where = f", {state}" if state in ("scheduled", "blocked") else ""
            say.print(f"{many} on queue {queue}{where}", style="dim")
        if wait:
            _wait_and_show(api, queue, ids, output=output)
            return
    if output is Format.TABLE:
        print("\n".join(ids))
        if sys.stdout.isatty() and len(ids) == 1:
            say.print(f"see the result with: {program_name()} result {ids[0]} --wait 30", style="dim", markup=False)
    else:
        dump({"queue": queue, "ids": ids}, output)


def _wait_and_show(api: Any, queue: str, ids: list[str], *, output: Format) -> None:
    from agent_runtime.cli.output import show_list, show_task, stderr, task_columns
    from agent_runtime.cli.waiting import wait_for

    tasks = list(wait_for(api, queue, ids, seconds=None).values())
    if len(tasks) == 1:
        show_task(tasks[0], output=output)
    else:
        show_list(tasks, task_columns(), output=output, empty="no tasks")
    bad = [task for task in tasks if task["state"] != "succeeded"]
    if len(tasks) > 1:
        stderr().print(
            f"{len(tasks) - len(bad)} succeeded, {len(bad)} did not", style="bold red" if bad else "bold green"
        )
    if bad:
        raise typer.Exit(1)


def _payloads(payload: str | None, file: str | None) -> list[Any]:
    if (payload is None) == (file is None):
        raise CliError("give the task's input either as PAYLOAD or with --file", exit_code=EXIT_USAGE)
    if payload is not None:
        try:
            return [json.loads(payload)]
        except ValueError as error:
            raise CliError(
                f"the payload is not JSON: {error}. Text needs double quotes inside: '\"hello\"'", exit_code=EXIT_USAGE
            ) from error
    assert file is not None  # noqa: S101 - one of the two is given, see above
    return _from_file(file)


def _from_file(file: str) -> list[Any]:
    name = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise CliError(f"cannot read {name}: {error.strerror}", exit_code=EXIT_USAGE) from error
    except UnicodeDecodeError as error:
        raise CliError(f"{name} is not UTF-8 text: {error}", exit_code=EXIT_USAGE) from error
    try:
        return [json.loads(text)]
    except ValueError as error:
        whole = error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise CliError(f"{name} is empty: it must hold JSON", exit_code=EXIT_USAGE)
    values = []
    for number, line in lines:
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise CliError(
                f"{name} is neither one JSON value ({whole}) nor JSON Lines (line {number}: {error})",
                exit_code=EXIT_USAGE,
            ) from error
    return values
