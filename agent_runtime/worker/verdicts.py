# SPDX-License-Identifier: Apache-2.0
"""How an attempt ended, as the queue wants to know it: from what the handler returned or raised."""

import logging
from collections.abc import Sequence
from typing import Any

import orjson

from agent_runtime.agent.attempt import Attempt, StopReason
from agent_runtime.queue.base import Claim, Failed, Outcome, Succeeded
from kubeagents_api.errors import InvalidTaskError, PermanentError, TemporaryError

_log = logging.getLogger(__name__)

_MESSAGE_LIMIT = 4096
"""Characters of an error that are recorded; the log has all of it."""


class Verdicts:
    """Makes outcomes, and logs those that are no success."""

    def __init__(self, *, max_result_bytes: int) -> None:
        self._max_result_bytes = max_result_bytes

    def success(self, claim: Claim, value: Any) -> Outcome:
        """It returned a value."""
        try:
            result = orjson.dumps(value)
        except TypeError as error:
            message = f"the handler returned {type(value).__name__}, which is not JSON: {error}"
            return self.refused(claim, "RESULT_NOT_JSON", message)
        if len(result) > self._max_result_bytes:
            message = (
                f"the result has {len(result)} bytes of JSON, the queue takes {self._max_result_bytes}: return less, "
                "store it elsewhere and return where, or raise the TaskQueue's maxPayloadBytes"
            )
            return self.refused(claim, "RESULT_TOO_LARGE", message)
        return Succeeded(claim, result)

    def refused(self, claim: Claim, code: str, message: str) -> Failed:
        """What it did can never be right."""
        _log.warning("task %s failed for good: %s: %s", claim.id, code, message, extra={"task": claim.id})
        return Failed(claim, code, message, permanent=True)

    def unreadable(self, claim: Claim, error: orjson.JSONDecodeError) -> Failed:
        """Its payload is no JSON."""
        return self.refused(claim, InvalidTaskError.code, f"the payload in the queue is no JSON: {error}")

    def failure(self, claim: Claim, error: BaseException) -> Failed:
        """It raised an error."""
        return self._failed(claim, error, f"task {claim.id}", f"attempt {claim.attempt} of {claim.max_attempts}")

    def failures(self, claims: Sequence[Claim], error: BaseException) -> list[Failed]:
        """A batch raised an error. It is logged once."""
        if len(claims) < 2:
            return [self.failure(claim, error) for claim in claims]
        first, *others = claims
        what = f"a batch of {len(claims)} tasks ({first.id} …)"
        return [self._failed(first, error, what, "one attempt"), *(_failed(claim, error) for claim in others)]

    def stopped(self, attempt: Attempt, *, batch_seconds: float | None = None) -> Outcome | None:
        """It was told to stop, and did. None: there is nothing to record. `batch_seconds` is what its batch had."""
        if attempt.stop is not StopReason.TIMEOUT:
            return None
        claim = attempt.claim
        if batch_seconds is None:
            message = f"not done within {claim.timeout_seconds:g} s, so it was cancelled"
        else:
            message = f"the batch was not done within {batch_seconds:g} s, so it was cancelled"
        return Failed(claim, "TIMEOUT", message)

    def _failed(self, claim: Claim, error: BaseException, what: str, attempt: str) -> Failed:
        failed = _failed(claim, error)
        extra = {"task": claim.id}
        message = _describe(error)
        if failed.permanent:
            _log.warning("%s failed for good in %s: %s", what, attempt, message, extra=extra)
        elif isinstance(error, TemporaryError):
            _log.info("%s asks for another try in %s: %s", what, attempt, message, extra=extra)
        else:
            _log.warning("%s failed in %s: %s", what, attempt, message, exc_info=error, extra=extra)
        return failed


def _failed(claim: Claim, error: BaseException) -> Failed:
    message = _describe(error)[:_MESSAGE_LIMIT]
    if isinstance(error, PermanentError):
        return Failed(claim, error.code, message, permanent=True)
    if isinstance(error, TemporaryError):
        return Failed(claim, error.code, message, delay_seconds=error.delay)
    return Failed(claim, "FAILED", message)


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # a handler's exception class may have a faulty __str__
        text = f"(its text cannot be had: {type(broken).__name__})"
    name = type(error).__name__
    return f"{name}: {text}" if text else name
