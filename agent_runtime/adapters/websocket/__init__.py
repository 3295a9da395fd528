# SPDX-License-Identifier: Apache-2.0
"""WebSocket: the calls of `adapters.calls` as messages of text, at /v1/ws of the HTTP port."""
