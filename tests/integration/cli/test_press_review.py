# SPDX-License-Identifier: Apache-2.0
"""The example of agents that work together, as its README starts it."""

import sys
from collections.abc import Callable
from pathlib import Path

from tests.integration.cli.conftest import QUICKSTART, ROOT, Finished

EXAMPLE = ROOT / "examples" / "03-press-review"


def test_the_press_review_reads_every_text_it_can_and_names_the_others(
    run: Callable[..., Finished], tmp_path: Path
) -> None:
    unknown = tmp_path / "unknown.txt"
    unknown.write_text("Lorem ipsum dolor sit amet, consectetur adipiscing elit.")
    texts = [*sorted((QUICKSTART / "texts").glob("*.txt")), unknown]
    done = run("dev", EXAMPLE, "--port", "0", "--", sys.executable, EXAMPLE / "review.py", *texts)
    for text in texts[:-1]:
        assert f"{text.stem} (en, " in done.out, done.err
    assert "The keeper is an old woman called Marta." in done.out
    assert "unread: PermanentError: called task " in done.err
    assert "this is none of the languages de, en, fr" in done.err
    assert done.code == 1, "the client says so"
