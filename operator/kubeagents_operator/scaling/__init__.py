# SPDX-License-Identifier: Apache-2.0
"""How many replicas an Agent has, and which ones go when there are too many.

`plan.ReplicaPlan` is what the rest of the operator sees of it: how many replicas there should be, and how many the
Deployment keeps for now.
"""
