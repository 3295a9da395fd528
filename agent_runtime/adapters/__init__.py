# SPDX-License-Identifier: Apache-2.0
"""The wires. An adapter translates between one protocol and the core, and does nothing else.

    client ──protocol──► Adapter ──Core──► central.Central ──TaskQueue──► Redis

What is a task, who may take it, when it is retried: all that is decided behind `base.Core`, so that every protocol has
the same semantics. Errors cross the seam as the tree of `kubeagents_api.errors`; each adapter has one table that turns
them into its protocol's own.

One more protocol: a module here with a class that fits `base.Adapter`, and its line in `registry.ADAPTERS`.
"""
