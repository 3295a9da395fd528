# SPDX-License-Identifier: Apache-2.0
"""A client of the quickstart: submits real work over HTTP, waits for the results and checks every one of them.

    kubeagents dev examples/01-quickstart -- python examples/01-quickstart/demo.py

It works against any CentralAgent: KUBEAGENTS_SERVER (which `kubeagents dev` sets) or --server says which. The exit code
is 0 only if every result was right. What "right" means is worked out here, by other means than the agents use.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

TEXTS = Path(__file__).parent / "texts"
BATCH = 500
PATIENCE_SECONDS = 60.0
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Job:
    """A task to submit. `title` is the file's name where the task is about a whole file."""

    agent: str
    payload: Any
    title: str = ""


def jobs(echoes: int) -> list[Job]:
    """So many echoes; and for each text, one task for the whole and one for each paragraph."""
    work = [Job("echo", {"number": number, "text": f"hello {number}"}) for number in range(echoes)]
    for path in sorted(TEXTS.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        work.append(Job("textstats", {"text": text, "top": 3}, title=path.stem.replace("-", " ")))
        work += [Job("textstats", {"text": paragraph}) for paragraph in text.split("\n\n") if paragraph.strip()]
    return work


def submit(client: httpx.Client, work: list[Job]) -> tuple[str, list[str]]:
    """Submit jobs in one call, all or none; the queue they are on, and their ids in the same order."""
    tasks = [{"agent": job.agent, "payload": job.payload} for job in work]
    answer = client.post("/v1/tasks/batch", json={"tasks": tasks}).raise_for_status().json()
    return answer["queue"], answer["ids"]


def results(client: httpx.Client, queue: str, ids: list[str]) -> Iterator[dict[str, Any]]:
    """The tasks as they finish. One call waits for many; it answers when all are done, or after a second."""
    last_news = time.monotonic()
    pending = ids
    while pending:
        asked, rest = pending[:BATCH], pending[BATCH:]
        body = {"ids": asked, "timeoutSeconds": 1}
        answer = client.post(f"/v1/queues/{queue}/results", json=body).raise_for_status().json()
        finished = [task for task in answer["tasks"] if task["state"] in ("succeeded", "failed", "dead")]
        yield from finished
        done = {task["id"] for task in finished}
        pending = [task_id for task_id in asked if task_id not in done] + rest
        if finished:
            last_news = time.monotonic()
        elif time.monotonic() - last_news > PATIENCE_SECONDS:
            raise TimeoutError(f"{len(pending)} tasks have no result after {PATIENCE_SECONDS:g} s without news")


def fault(job: Job, task: dict[str, Any]) -> str | None:
    """What is wrong with a result; None if nothing is."""
    if task["state"] != "succeeded":
        failures = task.get("failures") or [{}]
        return f"{job.agent} task {task['id']} is {task['state']}: {failures[-1].get('message', 'no message')}"
    result = task["result"]
    if job.agent == "echo":
        right = result["echo"] == job.payload
    else:
        words = words_of(job.payload["text"])
        right = (
            result["words"] == sum(words.values())
            and result["uniqueWords"] == len(words)
            and all(words[top["word"]] == top["count"] for top in result["topWords"])
        )
    return None if right else f"{job.agent} task {task['id']} has a wrong result: {result}"


def words_of(text: str) -> Counter[str]:
    """Count words without regular expressions, unlike the agent: all that cannot be in a word becomes a space."""
    letters = "".join(c if c.isalnum() or c in "'’-" else " " for c in text.lower())
    return Counter(word for part in letters.split() if (word := part.strip("'’-")))


def run(client: httpx.Client, echoes: int, console: Console) -> int:
    """Submit, wait, check, report; returns the exit code."""
    work = jobs(echoes)
    submitted: dict[str, Job] = {}
    done: dict[str, dict[str, Any]] = {}
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    begun = time.monotonic()
    with Progress(*columns, console=console) as progress:
        submitting = progress.add_task("submitted", total=len(work))
        finishing = progress.add_task("finished", total=len(work))
        for start in range(0, len(work), BATCH):
            part = work[start : start + BATCH]
            queue, ids = submit(client, part)
            submitted |= zip(ids, part, strict=True)
            progress.update(submitting, completed=len(submitted))
        for task in results(client, queue, list(submitted)):
            done[task["id"]] = task
            progress.update(finishing, completed=len(done))
    seconds = time.monotonic() - begun

    faults = [text for task_id, job in submitted.items() if (text := fault(job, done[task_id]))]
    whole = sum(done[i]["result"]["words"] for i, job in submitted.items() if job.title and not faults)
    parts = sum(
        done[i]["result"]["words"]
        for i, job in submitted.items()
        if job.agent == "textstats" and not job.title and not faults
    )
    if whole != parts:
        faults.append(f"the texts have {whole} words, but their paragraphs have {parts}")
    report(console, submitted, done, seconds)
    if faults:
        for text in faults[:SHOWN_FAULTS]:
            console.print(f"wrong: {text}", style="red", markup=False)
        console.print(f"{len(faults)} of {len(submitted)} results are not right", style="bold red")
        return 1
    console.print(f"all {len(submitted)} results are right", style="bold green")
    return 0


def report(console: Console, submitted: dict[str, Job], done: dict[str, dict[str, Any]], seconds: float) -> None:
    """The results that are worth a look, and the speed."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header, justify in (("TEXT", "left"), ("WORDS", "right"), ("EASE", "right")):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    table.add_column("TOP WORDS")
    for task_id, job in submitted.items():
        if job.title and done[task_id]["state"] == "succeeded":
            found = done[task_id]["result"]
            top = ", ".join(f"{entry['word']} {entry['count']}" for entry in found["topWords"])
            table.add_row(job.title, str(found["words"]), f"{found['readingEase']:.0f}", top)
    console.print()
    console.print(table)
    workers = Counter(task.get("worker") or "-" for task in done.values())
    console.print()
    console.print(
        "done by   " + ", ".join(f"{name} {count:,}" for name, count in sorted(workers.items())), markup=False
    )
    console.print(
        f"speed     {len(done):,} tasks in {seconds:.2f} s, {len(done) / seconds:,.0f} tasks/s, from submit to result"
    )


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description="Submit work to the quickstart's agents and check every result.")
    parser.add_argument("--server", default=os.environ.get("KUBEAGENTS_SERVER"), help="URL of a CentralAgent")
    parser.add_argument("--echoes", type=int, default=2000, help="how many echo tasks (default: 2000)")
    arguments = parser.parse_args()
    if not arguments.server:
        parser.error("no server: set KUBEAGENTS_SERVER or use --server, or run this by `kubeagents dev … -- …`")
    console = Console(highlight=False)
    try:
        with httpx.Client(base_url=arguments.server, timeout=60) as client:
            return run(client, arguments.echoes, console)
    except httpx.HTTPStatusError as error:
        console.print(f"{error.request.url} answered {error.response.text}", style="red", markup=False)
    except (httpx.HTTPError, TimeoutError) as error:
        console.print(f"{arguments.server}: {error}", style="red", markup=False)
    return 1


if __name__ == "__main__":
    sys.exit(main())
