# SPDX-License-Identifier: Apache-2.0
"""The one exception that a command ends with on purpose, and the exit codes."""

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_PENDING = 3
"""The time to wait is over and a task is not finished yet."""


class CliError(Exception):
    """Ends the command. The text says what happened, where, and what to do next; it is printed after `error:`."""

    def __init__(self, message: str, *, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
