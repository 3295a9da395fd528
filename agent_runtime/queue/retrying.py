# SPDX-License-Identifier: Apache-2.0
"""Whether and when a failed attempt is followed by another one."""

from agent_runtime.queue.base import Failed
from kubeagents_api.task_queue import RetryPolicy


def retry_is_useless(failed: Failed, policy: RetryPolicy) -> bool:
    """Whether the policy names the error: its code, or the class of the exception, with which the message begins."""
    if not policy.non_retryable_errors:
        return False
    return not {failed.code, failed.message.split(":", 1)[0]}.isdisjoint(policy.non_retryable_errors)


def retry_delay_seconds(failed: Failed, policy: RetryPolicy, *, luck: float) -> float:
    """Seconds until the next attempt: the error's own, else the policy's backoff. `luck`, 0 to 1, is the jitter's."""
    if failed.delay_seconds is not None:
        return max(0.0, failed.delay_seconds)
    backoff = min(policy.max_seconds, policy.initial_seconds * policy.factor ** (failed.claim.attempt - 1))
    return backoff * (1 + policy.jitter * luck)
