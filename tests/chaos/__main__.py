# SPDX-License-Identifier: Apache-2.0
"""`make chaos`: many rounds in which all goes wrong that can, and whether the queue has kept its promises.

Exit code 0: it has. 1: it has not, or too little went wrong to tell. 130: cut short by Ctrl-C or SIGTERM.
"""

import argparse
import asyncio
import json
import logging
import secrets
import signal
import subprocess
import sys
import traceback
from pathlib import Path

from benchmarks import machine
from tests.chaos.campaign import Campaign
from tests.chaos.progress import Progress
from tests.chaos.scenes import PARTS
from tests.chaos.storage import DURABLE
from tests.support.redis_server import binaries

ROOT = Path(__file__).parents[2]
LONG = 1_000_000


def main() -> int:
    """Run, print and write."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=LONG, help=f"tasks in all, at least (default: {LONG:,})")
    parser.add_argument("--seed", default="", help="do what a run with this seed did (default: a new one)")
    parser.add_argument("--round", type=int, help="play this round of the seed only")
    parser.add_argument("--part", choices=[part.name for part in PARTS], help="play rounds of this kind only")
    parser.add_argument("--server", choices=sorted(binaries()), help="which server (default: redis, if it is there)")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench" / "chaos.json")
    arguments = parser.parse_args()
    servers = binaries()
    server = arguments.server or next(iter(servers))
    campaign = Campaign(
        tasks=arguments.tasks,
        seed=arguments.seed or str(secrets.randbelow(10**8)),
        binary=servers[server],
        keep=ROOT / "build" / "chaos",
        parts=[part for part in PARTS if arguments.part in (None, part.name)],
        only=arguments.round,
    )
    campaign.keep.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=campaign.keep / "chaos.log", filemode="w")  # what the queue's clients have to say
    progress = Progress(campaign, stream=sys.stdout)
    version = _version(servers[server])
    progress.opening(server=version)
    interrupted = False
    broken: Exception | None = None
    try:
        asyncio.run(_until_told(campaign, progress))
    except (KeyboardInterrupt, asyncio.CancelledError):
        interrupted = True
    except Exception as error:  # what was found until then counts all the same
        traceback.print_exception(error)
        broken = error
    missing = [] if interrupted or broken else campaign.missing()
    report = {
        **campaign.report(),
        "passed": not (interrupted or broken or campaign.breaches or missing),
        "interrupted": interrupted,
        "broken": None if broken is None else f"{type(broken).__name__}: {broken}",
        "server": version,
        "settings": ["appendonly yes", *DURABLE],
        "machine": machine.describe(),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    progress.closing(output=arguments.output, interrupted=interrupted, missing=missing)
    return 130 if interrupted else int(not report["passed"])


async def _until_told(campaign: Campaign, progress: Progress) -> None:
    """Run until it is over. SIGTERM ends it as Ctrl-C does: in order."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await campaign.run(progress)


def _version(binary: Path) -> str:
    """For example `Redis server v=7.4.1`."""
    words = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()
    return " ".join(words[:3])


if __name__ == "__main__":
    sys.exit(main())
