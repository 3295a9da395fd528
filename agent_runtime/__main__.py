# SPDX-License-Identifier: Apache-2.0
"""`python -m agent_runtime`: the one entry point of every runtime process."""

import os
import sys

from agent_runtime.app import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
