# SPDX-License-Identifier: Apache-2.0
"""Installs Debian packages that tests need, where we may: as root, on Debian or a child of it.

Elsewhere it says what is missing and goes on; the tests then use what the Python packages bring.
"""

import os
import shutil
import subprocess
import sys

COMMANDS = {"redis-server": "redis-server"}
"""Debian package -> the command it brings."""


def install(*packages: str) -> None:
    """Install those whose command is missing. Raises CalledProcessError if apt-get fails."""
    missing = [package for package in packages if shutil.which(COMMANDS[package]) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"NOT INSTALLED: {', '.join(missing)} (not root on Debian); tests use what the Python packages bring")
        return
    print(f"Installing Debian packages: {' '.join(missing)} (about 20 s)", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, env=environment
    )


if __name__ == "__main__":
    install(*sys.argv[1:])
