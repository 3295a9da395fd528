# SPDX-License-Identifier: Apache-2.0
"""What every protocol should offer: the columns of the matrix."""

from enum import StrEnum


class Feature(StrEnum):
    """One column. Its value is the title."""

    ROUND_TRIP = "round trip"
    BATCH = "batch"
    STREAM = "stream"
    CANCEL = "cancel while running"
    DEADLINE = "deadline"
    PRIORITY = "priority"
    IDEMPOTENCY = "idempotent resubmission"
    LARGE = "1 MiB payload"
    MALFORMED = "malformed input"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    DRAIN = "drain"
    RECONNECT = "reconnect"
    REPLICAS = "two replicas"


MEANINGS: dict[Feature, str] = {
    Feature.ROUND_TRIP: "A task is submitted, and its result is the JSON that the handler returned.",
    Feature.BATCH: "Several tasks are submitted in one call: all of them, or none.",
    Feature.STREAM: "What a task says arrives while it runs.",
    Feature.CANCEL: "A running task is cancelled, and its handler is told why.",
    Feature.DEADLINE: "A task that does not end in time expires.",
    Feature.PRIORITY: "A task of a higher priority goes before those that wait.",
    Feature.IDEMPOTENCY: "A submission that is repeated, as its answer was lost, is queued once.",
    Feature.LARGE: "A payload of the queue's limit, 1 MiB, comes back whole; a larger one is refused.",
    Feature.MALFORMED: "What is no valid message is refused with a stable code, and the server goes on.",
    Feature.UNAUTHENTICATED: "Without a valid key there is nothing, where keys are asked for.",
    Feature.FORBIDDEN: "A key opens only what its role allows.",
    Feature.DRAIN: "A server that is told to stop answers the calls that wait, and ends.",
    Feature.RECONNECT: "After a broken connection a stream goes on where it was: nothing is missing or twice.",
    Feature.REPLICAS: "A task submitted at one replica is heard, cancelled and read at another; one may be killed.",
}
