# SPDX-License-Identifier: Apache-2.0
"""Kubeagents over gRPC, as a contract: `kubeagents/v1/kubeagents.proto`, and the Python code that is generated from it.

The proto is part of the package, so that clients in other languages can be generated from what is installed; servers
also tell it by reflection. `python -m agent_runtime.protos` generates the code anew, with `--check` it says whether
that is due. Fields and calls may be added; numbers and names of those that are there stay.
"""
