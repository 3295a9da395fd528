# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a test cluster."""


class ClusterError(RuntimeError):
    """Something that should work here did not; the message says what, and where to look."""


class ClusterUnavailableError(ClusterError):
    """No cluster can be had on this machine; the message says what is missing."""
