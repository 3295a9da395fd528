# SPDX-License-Identifier: Apache-2.0
"""What an Agent's process does: claim tasks, run the handler, record how it ended.

    queue ──claim──► Slots ──► Singles or Batches: the handler ──outcome──► Settlement ──settle──► queue
                       ▲                │
      Leases: extend every third        └─ progress, parts ──► Speech ──emit──► queue
      of a lease                                         one call at a time for each of these,
      Revocations: what was taken away                   with all that has come up meanwhile
      Heart: beat every heartbeatSeconds ──orders──► Cordon: pauses and resumes the claims

Guarantees
- Never more than `concurrency` tasks are held: nothing is claimed ahead, so a slow process does not hoard work.
- Claiming and settling overlap, and both travel in batches. Under light load an outcome leaves at once; under heavy
  load batches grow by themselves to what ended during the last round trip.
- Every claim ends in exactly one of: settled, given back (drain), dropped because it was taken away (logged).
- What an attempt has said has arrived before its outcome is settled.
- A cordoned process claims nothing, finishes what it runs and stays ready. Once a heartbeat of it says `cordoned` and
  `running: 0`, nothing is lost if it is ended; see `cordon`.
- An attempt whose task is cancelled, or expires, is cancelled as soon as the queue says so. If that news may have been
  missed, because the connection broke, all leases are looked at once there is one again.

How an attempt ends
    returns JSON                        succeeded
    returns something else, or too much failed for good: RESULT_NOT_JSON, RESULT_TOO_LARGE
    raises PermanentError               failed for good, with the error's code
    raises TemporaryError(delay=…)      failed; next attempt after the delay
    takes longer than its timeout       cancelled, failed: TIMEOUT
    raises anything else                failed: FAILED, `ClassName: text`; the traceback goes to the log
    task cancelled, or expired          cancelled, outcome dropped
    lease lost                          cancelled, outcome dropped
    the process drains                  cancelled at the end of drainSeconds, given back; the attempt does not count

In a batch each element of what the handler returns is looked at in this way; what it raises holds for all. It is
cancelled once none of its tasks is wanted any more.

When Redis does not answer, running handlers go on. Their outcomes are kept and offered again until Redis answers; the
queue decides by the attempt's token whether they still count. New claims wait, so at most `concurrency` outcomes are
kept. After a drain that cannot reach Redis the tasks run again elsewhere once their leases are over.

A handler that blocks the event loop blocks all of this; `telemetry.loop_watch` says so and where. A handler that
ignores its cancellation keeps its slot, but its lease is not renewed any more, so that its task can run elsewhere.
"""

from agent_runtime.worker.consumer import Consumer

__all__ = ["Consumer"]
