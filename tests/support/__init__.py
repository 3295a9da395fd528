# SPDX-License-Identifier: Apache-2.0
"""What tests share: a real Redis, a real cluster, and one poller."""
