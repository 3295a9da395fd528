# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.e2e`: the tests on a real cluster, several at a time; then, one by one, those that need it alone.

`pytest tests/e2e` runs them, too, one after the other. Further arguments go to pytest.
"""

import os
import subprocess
import sys

from tests import cluster
from tests.cluster import binaries, chart
from tests.e2e.conftest import PREPARED

AT_A_TIME = "3"
NONE_COLLECTED = 5
"""What pytest exits with if the arguments select no test."""


def main(arguments: list[str]) -> int:
    # Runs on one machine share its cluster, and some tests stop the operator: so they take turns.
    with binaries.lock(binaries.cache_folder() / "tests"):
        running = cluster.is_running()
        try:
            chart.install(cluster.ensure())
        except cluster.ClusterUnavailableError as error:
            print(f"NO KUBERNETES CLUSTER: {error}. The tests on a real cluster did not run.", file=sys.stderr)
            return 1 if os.environ.get("CI") == "true" else 0
        together = _pytest("-m", "not alone", "-n", AT_A_TIME, "--dist", "load", *arguments)
        alone = _pytest("-m", "alone", *arguments)
        if not running and "--keep-cluster" not in arguments:
            cluster.down()
    return max(code for code in (together, alone) if code != NONE_COLLECTED or together == alone)


def _pytest(*arguments: str) -> int:
    command = [sys.executable, "-m", "pytest", "tests/e2e", *arguments]
    return subprocess.run(command, env={**os.environ, PREPARED: "1"}).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
