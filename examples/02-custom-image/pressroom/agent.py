# SPDX-License-Identifier: Apache-2.0
"""The agent: a class, because its parser is made once per process and used by all tasks."""

import asyncio
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from agent_runtime.agent import Context, Task
from kubeagents_api.errors import PermanentError


class Renderer:
    """`{"markdown": "# Hello"}` -> `{"html": "<h1>Hello</h1>", "headings": ["Hello"]}`."""

    def __init__(self) -> None:
        self._parser = MarkdownIt("commonmark", {"html": False}).enable("table")

    async def handle(self, task: Task, ctx: Context) -> dict[str, Any]:
        """Render one document."""
        match task.payload:
            case {"markdown": str(text)}:
                # A thread: a long document must not keep this process from renewing its leases.
                return await asyncio.to_thread(self.render, text)
            case _:
                raise PermanentError('the payload must look like {"markdown": "# Hello"}')

    def render(self, text: str) -> dict[str, Any]:
        """HTML and headings of a document."""
        tokens = self._parser.parse(text)
        html = self._parser.renderer.render(tokens, self._parser.options, {})
        return {"html": html, "headings": _headings(tokens)}


def _headings(tokens: list[Token]) -> list[str]:
    return [inline.content for opening, inline in pairwise(tokens) if opening.type == "heading_open"]
