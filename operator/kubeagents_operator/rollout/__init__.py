# SPDX-License-Identifier: Apache-2.0
"""A new version of an Agent on a part of its replicas first: the canary that `spec.rollout` asks for.

An Agent's Deployment, the stable one, keeps the version that is known to work; a second one, `<name>-agent-canary`,
runs the new one. Both take tasks from the same queue, so the shares of the replicas are the shares of the tasks. What
decides are the queue's own figures: how many attempts the canary's processes have ended with success, and how many
without.

                                       ┌──────── the spec changes: from the start, with the newest version
                                       ▼    │
    at rest ── a new version ──► trying, step 1 … n ── the last step ends ──► promoting ── stable updated ──► at rest
       ▲                               │                                     (rolling update)
       │                               │ its attempts fail, or its pods do not come up
       └── the spec changes back ── taken back: not tried again before the spec changes

A step starts its canary pods first and takes as many stable ones away only when those are ready; then its pause begins.
It ends when the pause is over (or somebody promotes it), all its pods are ready and enough attempts have ended well.

- `state.State` is what is remembered. All of it is in `status.rollout`, and it is written there *before* anything is
  done about it, so an operator that is killed at any moment goes on, and never tries again what it has taken back.
- `machine.advance` decides: a pure function from the state and what is seen to the next state and the two Deployments.
- `tally.Tally` adds up the attempts over all processes that the version has had.
- `code.copy` gives each version a copy of its code, so that old replicas which start again do not read the new one.
- `templates.Templates` keeps the pod template of the stable Deployment while the spec says another one. It is read back
  from the live Deployment, whose `managedFields` say which are ours; written again, it changes nothing.
- `view.view` says it in conditions.

# Guarantees

- Both Deployments together have the replicas that the Agent should have; while a step starts its pods, and with a
  single replica, the canary's come on top. They have fewer only in the moment in which a version is taken back.
- A version that was taken back runs nowhere, and the stable one has all replicas. Its tasks that had begun are finished
  within `drainSeconds` or given back without costing an attempt.
- A restart, and a change of the queue's Secret or of a value in `env` that comes from a Secret or ConfigMap, is no new
  version: it replaces the pods of both.
- If the stable Deployment has never worked there is nothing to protect: a new version replaces it by a rolling update.

What is lost when the operator is down: attempts of processes that begin and end meanwhile are not counted; and if
somebody deletes the stable Deployment of a canary meanwhile, its template is gone, and all replicas get the new one.
"""
