# SPDX-License-Identifier: Apache-2.0
"""Reads a text: says how long that takes, asks what language it is in, and picks a sentence from each paragraph.

{"title": "…", "text": "…"}  ->  {"title": "…", "language": "en", "seconds": 75, "highlights": ["…", …]}
"""

import re
from collections import Counter
from typing import Any

from agent_runtime.agent import Context, Task
from kubeagents_api.errors import PermanentError

WORD = re.compile(r"[^\W\d_]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
WORDS_PER_SECOND = 4
COMMON_LETTERS = 4
"""Words as short as this say little about what a text is about."""


async def handle(task: Task, ctx: Context) -> dict[str, Any]:
    """Read one text. Each sentence that is picked is handed out at once, as a part of the result."""
    match task.payload:
        case {"title": str(title), "text": str(text)} if WORD.search(text):
            pass
        case _:
            raise PermanentError('the payload must look like {"title": "…", "text": "…"}, with words in the text')
    await ctx.progress(0, "asking for the language")
    # The linguist's failure would be ours: PermanentError if it fails for good, TemporaryError if it takes too long.
    language = await ctx.call({"text": text}, agent="linguist", timeout_seconds=30)

    weights = Counter(word for word in words(text) if len(word) > COMMON_LETTERS)
    paragraphs = [paragraph for paragraph in text.split("\n\n") if WORD.search(paragraph)]
    highlights = []
    for number, paragraph in enumerate(paragraphs, start=1):
        sentences = SENTENCE_END.split(" ".join(paragraph.split()))
        highlights.append(max(sentences, key=lambda sentence: weight(sentence, weights)))
        await ctx.partial(highlights[-1])
        await ctx.progress(number / len(paragraphs), f"paragraph {number} of {len(paragraphs)}")
    seconds = round(len(words(text)) / WORDS_PER_SECOND)
    return {"title": title, "language": language, "seconds": seconds, "highlights": highlights}


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word.lower() for word in WORD.findall(text)]


def weight(sentence: str, weights: Counter[str]) -> float:
    """How much of what the text is about is in a sentence, for its length."""
    found = words(sentence)
    return sum(weights[word] for word in found) / (len(found) or 1)
