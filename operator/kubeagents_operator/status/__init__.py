# SPDX-License-Identifier: Apache-2.0
"""What a custom resource is, as its status says it: pure functions from what was observed to conditions and fields.

Each kind has a `report` function. It first comes to a verdict, of which there are three kinds, so that kstatus, Argo CD
and `kubectl wait` all read the same:

    verdict       Ready   Reconciling   Stalled   kstatus
    Current       True    False         False     Current
    Progressing   False   True          False     InProgress   gets there by itself, or when what is missing appears
    Stalled       False   False         True      Failed       somebody has to change something

The rules for what becomes what:

- What heals by itself (a rollout, a restart of Redis, a change of leaders) is Progressing.
- What cannot heal (a handler that cannot be imported, an invalid URL) is Stalled at once.
- What may heal but usually does not (an image that cannot be pulled) is Progressing until its deadline, then Stalled.
- What is not known yet, as just after a restart of the operator, is left as the status says it was.

Messages have no counters and no times: a status is written when something changed, not because time passed.
"""
