# SPDX-License-Identifier: Apache-2.0
"""Leader of the process group that all processes of a session are in; ends the group when the session is gone.

Run as a script, with the session's temporary folder as its argument and the read end of a pipe as its standard input.
The session holds the other end, so end of file means that it is gone, however it went. Standard library only: this
must be up in milliseconds and cannot fail on an import.
"""

import os
import shutil
import signal
import sys


def main() -> None:
    """Wait for the end of the session, then remove its folder and kill the process group, this process included."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1024):
        pass
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
