# SPDX-License-Identifier: Apache-2.0
"""`python -m kubeagents_operator`: settings from the environment, logs on standard error."""

import asyncio
import logging
import os
import sys
import threading

from kubernetes.aio.config import ConfigException

from agent_runtime.event_loop import new_event_loop
from agent_runtime.telemetry import logs
from kubeagents_api.errors import RuntimeConfigError
from kubeagents_operator import app, settings

_log = logging.getLogger("kubeagents_operator")

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: a restart does not help."""
EXIT_SECONDS = 10.0
"""For the event loop to close, once all is done."""


def main() -> int:
    """Run the operator; the exit code of the process."""
    try:
        logs.configure(os.environ)
        configured = settings.load(os.environ)
    except RuntimeConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    # kopf's watches report what goes wrong to us; its own log lines would say it once more per resource and try.
    if not _log.isEnabledFor(logging.DEBUG):
        logging.getLogger("kopf").setLevel(logging.CRITICAL + 1)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            code = runner.run(app.run(configured))
            # A task of a library that does not let itself be cancelled must not keep this process: it has handed over.
            last_resort = threading.Timer(EXIT_SECONDS, os._exit, [code])
            last_resort.daemon = True
            last_resort.start()
        return code
    except ConfigException as error:
        _log.error("there is no way to the API server: set KUBECONFIG, or run in a pod with a token (%s)", error)
        return EXIT_CONFIG
    except RuntimeConfigError as error:
        _log.error("%s", error)
        return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main())
