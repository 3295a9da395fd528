# SPDX-License-Identifier: Apache-2.0
"""Tells languages apart by their most common words. A batch handler: it looks at several texts in one go.

{"text": "…"}  ->  "en"
"""

import re
from typing import Any

from agent_runtime.agent import BatchContext, Task
from kubeagents_api.errors import PermanentError

WORD = re.compile(r"[^\W\d_]+")
COMMON = {
    "de": frozenset(WORD.findall("der die das und ist nicht ein eine mit auf den dem von zu im sich es war für")),
    "en": frozenset(WORD.findall("the and of to a in is it that was with for not on as at by had from but")),
    "fr": frozenset(WORD.findall("le la les et est un une des du dans que qui pas pour sur il elle au avec ne")),
}
ENOUGH = 0.1
"""The least share of common words that a text of a language has."""


async def handle(tasks: list[Task], ctx: BatchContext) -> list[Any]:
    """The language of each text. One that cannot be told fails by itself; the others of the batch do not suffer."""
    ctx.log.info("looking at %d texts", len(tasks))
    return [language(task.payload["text"]) for task in tasks]


def language(text: str) -> str | PermanentError:
    """The language with the largest share of common words."""
    found = [word.lower() for word in WORD.findall(text)]
    shares = {name: sum(word in common for word in found) / len(found) for name, common in COMMON.items()}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] < ENOUGH:
        return PermanentError(f"this is none of the languages {', '.join(COMMON)}")
    return best
