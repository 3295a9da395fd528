# SPDX-License-Identifier: Apache-2.0
"""A client: has texts reviewed over HTTP, prints the review, and exits 0 only if every text was read.

kubeagents dev examples/03-press-review -- python examples/03-press-review/review.py examples/01-quickstart/texts/*.txt
"""

import os
import sys
from pathlib import Path
from typing import Any

import httpx


def ended(client: httpx.Client, queue: str, task_id: str) -> dict[str, Any]:
    """A task, once it has ended. The server answers as soon as it has."""
    while True:
        answer = client.get(f"/v1/queues/{queue}/tasks/{task_id}/result", params={"timeoutSeconds": 30})
        task: dict[str, Any] = answer.raise_for_status().json()
        if answer.status_code == 200:
            if task["state"] != "succeeded":
                raise SystemExit(f"task {task_id} is {task['state']}: {task['failures'][-1]['message']}")
            return task


def main() -> int:
    """Submit, wait, print."""
    texts = {Path(name).stem: Path(name).read_text(encoding="utf-8") for name in sys.argv[1:]}
    with httpx.Client(base_url=os.environ["KUBEAGENTS_SERVER"], timeout=60) as client:
        plan = client.post("/v1/tasks", json={"agent": "editor", "payload": {"texts": texts}}).raise_for_status().json()
        review_id = ended(client, plan["queue"], plan["id"])["result"]["review"]
        review = ended(client, plan["queue"], review_id)["result"]
    for article in review["articles"]:
        print(f"{article['title']} ({article['language']}, {article['seconds']} s)")
        for highlight in article["highlights"]:
            print(f"    {highlight}")
    for message in review["unread"]:
        print(f"unread: {message}", file=sys.stderr)
    return 0 if len(review["articles"]) == len(texts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
