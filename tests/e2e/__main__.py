# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.e2e`: the tests on a real cluster, several at a time; then, one by one, those that need it alone.

`pytest tests/e2e` runs them, too, one after the other. Further arguments go to pytest.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from tests import cluster
from tests.cluster import binaries, chart
from tests.e2e.conftest import PREPARED

AT_A_TIME = "3"
NONE_COLLECTED = 5
"""What pytest exits with if the arguments select no test."""
INTERRUPTED = 2
"""What it exits with after Ctrl-C."""


def main(arguments: list[str]) -> int:
    # Runs on one machine share its cluster, and some tests stop the operator: so they take turns.
    with binaries.lock(binaries.cache_folder() / "tests"):
        running = cluster.is_running()
        try:
            chart.install(cluster.ensure())
        except cluster.ClusterUnavailableError as error:
            print(f"NO KUBERNETES CLUSTER: {error}. The tests on a real cluster did not run.", file=sys.stderr)
            return 1 if os.environ.get("CI") == "true" else 0
        ended = [_pytest("-m", "not alone", "-n", AT_A_TIME, "--dist", "worksteal", *arguments)]
        if ended[0] != INTERRUPTED:
            ended.append(_pytest("-m", "alone", *arguments))
        if not running and "--keep-cluster" not in arguments:
            cluster.down()
    return outcome(ended)


def outcome(ended: Sequence[int]) -> int:
    """The exit code for those of several runs of pytest. Only one of them has to find tests; a negative code is a death
    by a signal."""
    failed = [code for code in ended if code not in (0, NONE_COLLECTED)]
    if failed:
        return next((code for code in failed if code > 0), 1)
    return 0 if 0 in ended else NONE_COLLECTED


def _pytest(*arguments: str) -> int:
    command = [sys.executable, "-m", "pytest", "tests/e2e", "--durations=10", *arguments]
    with subprocess.Popen(command, env={**os.environ, PREPARED: "1"}) as process:
        while True:
            with suppress(KeyboardInterrupt):  # Ctrl-C reaches pytest, too, which then takes its namespaces away
                return process.wait()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
