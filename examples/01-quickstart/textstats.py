# SPDX-License-Identifier: Apache-2.0
"""An agent that does real work: it reads a text and says how long, how rich and how easy to read it is.

{"text": "…", "top": 5}  ->  {"words": 271, "sentences": 16, "uniqueWords": 143, "topWords": […], "readingEase": 84.1}
"""

import asyncio
import re
from collections import Counter
from typing import Any

from agent_runtime.agent import Context, Task
from kubeagents_api.errors import PermanentError

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
VOWELS = re.compile(r"[aeiouy]+")

TOO_COMMON = frozenset(
    WORD.findall(
        "a an and are as at be but by for from had has have he her his i in is it its my no not of on or she so that "
        "the their them then there they this to was we were when which who with you"
    )
)


async def handle(task: Task, ctx: Context) -> dict[str, Any]:
    """Answer with the figures of `payload.text`; `payload.top` says how many frequent words are wanted."""
    match task.payload:
        case {"text": str(text), "top": int(top)}:
            pass
        case {"text": str(text)}:
            top = 5
        case _:
            # Trying again would not help: the task fails at once. Any other exception is retried by the queue's policy.
            raise PermanentError('the payload must look like {"text": "…", "top": 5}')
    # The event loop also renews leases and sends heartbeats, so what keeps a CPU busy goes to a thread.
    stats = await asyncio.to_thread(measure, text, top)
    ctx.log.info("%d words, reading ease %.0f", stats["words"], stats["readingEase"])
    return stats


def measure(text: str, top: int) -> dict[str, Any]:
    """The figures of a text."""
    words = [word.lower() for word in WORD.findall(text)]
    sentences = max(1, len(SENTENCE_END.findall(text)))
    counted = Counter(word for word in words if word not in TOO_COMMON)
    frequent = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:top]
    return {
        "words": len(words),
        "sentences": sentences,
        "uniqueWords": len(set(words)),
        "longestWord": max(words, key=lambda word: (len(word), word), default=""),
        "topWords": [{"word": word, "count": count} for word, count in frequent],
        "readingEase": reading_ease(words, sentences),
    }


def reading_ease(words: list[str], sentences: int) -> float:
    """Flesch's formula: 90 reads easily, 30 does not. Syllables are estimated from groups of vowels."""
    if not words:
        return 0.0
    syllables = sum(
        max(1, len(VOWELS.findall(word)) - (word.endswith("e") and not word.endswith("le"))) for word in words
    )
    return round(206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words), 1)
