# SPDX-License-Identifier: Apache-2.0
"""One suite over all protocols: an agent is reached over each of them with the same semantics.

Each protocol has a driver in `drivers/`: a thin layer over a client that is not ours, which says for each feature how
it is done on its wire, or why it does not exist there. The tests know only the driver's interface. All run against real
processes: CentralAgents, with and without keys, Agents, and Redis. docs/reference/protocols.md is made from what the
drivers say.
"""
