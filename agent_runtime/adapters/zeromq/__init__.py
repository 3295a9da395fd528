# SPDX-License-Identifier: Apache-2.0
"""ZeroMQ: the calls of `adapters.calls`, one frame of JSON in each message, on a ROUTER socket of its own.

It needs pyzmq (the extra `zeromq`), and shows what one more protocol takes: this package, a line in the registry and a
row of the conformance suite. A ROUTER socket knows peers by routing ids and does not say when one goes, so a peer is a
session here from its first message until a message to it finds nobody.
"""
