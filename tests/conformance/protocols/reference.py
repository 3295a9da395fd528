# SPDX-License-Identifier: Apache-2.0
"""docs/reference/protocols.md, made from what the drivers say."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from kubeagents_api.endpoints import OWN_PORTS
from kubeagents_api.generated import write_or_check
from tests.conformance.protocols.drivers import DRIVERS
from tests.conformance.protocols.features import MEANINGS, Feature

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "protocols.md"

_HEAD = """<!-- Generated from tests/conformance/protocols by `make generate`. Do not edit. -->

# Protocols

One agent is reached over each of these, with the same semantics. Every cell that has no dash is a test in
`tests/conformance/protocols`: real processes, real sockets, and a client that is not ours.

"""


def page() -> str:
    """The page."""
    return _HEAD + "\n".join([*_overview(), "", *_meanings(), *_details()])


def _overview() -> Iterator[str]:
    names = [f"`{driver.name}`" for driver in DRIVERS]
    yield _row("", *names)
    yield _row("---", *[":---:"] * len(DRIVERS))
    for feature in Feature:
        yield _row(feature.value, *["✓" if feature in driver.offers else "–" for driver in DRIVERS])


def _meanings() -> Iterator[str]:
    yield "What they mean:\n"
    for feature in Feature:
        yield f"- **{feature.value}**: {MEANINGS[feature]}"


def _details() -> Iterator[str]:
    for driver in DRIVERS:
        port = OWN_PORTS.get(driver.endpoint)
        where = f"port {port}" if port is not None else "the HTTP port"
        yield f"\n## `{driver.name}`: {driver.title}\n"
        yield f"On {where}; tested by {driver.client}.\n"
        yield _row("feature", "on this wire")
        yield _row("---", "---")
        for feature in Feature:
            how = driver.offers.get(feature)
            yield _row(feature.value, how if how is not None else f"– {driver.lacks[feature]}")
    yield ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    arguments = parser.parse_args()
    raise SystemExit(write_or_check({PAGE: page()}, check=arguments.check))


if __name__ == "__main__":
    main()
