# SPDX-License-Identifier: Apache-2.0
"""Turns Markdown into HTML, one task per document."""
