# SPDX-License-Identifier: Apache-2.0
"""Let programs that speak MCP use agents as tools."""

import importlib.util
from collections.abc import Callable

from agent_runtime.cli.errors import CliError
from agent_runtime.cli.options import Target


def stdio(*, target: Target) -> None:
    """Serve the tools of a CentralAgent on stdin and stdout.

    For MCP clients that start their servers: give them this command. It ends with its input.

    Examples:

        {prog} mcp stdio
        {prog} mcp stdio --server https://agents.example.com --key-file ~/.config/kubeagents/key
    """
    import asyncio

    from agent_runtime.cli.server import find_server

    if importlib.util.find_spec("mcp") is None:
        raise CliError("the library for MCP is not installed: pip install 'kubeagents[central]'")
    from agent_runtime.cli.mcp_bridge import serve

    try:
        asyncio.run(serve(find_server(target)))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


COMMANDS: tuple[tuple[tuple[str, ...], Callable[..., None]], ...] = ((("stdio",), stdio),)
