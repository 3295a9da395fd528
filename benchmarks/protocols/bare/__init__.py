# SPDX-License-Identifier: Apache-2.0
"""The servers to compare with: they check a task, make up an id, and keep nothing. Each prints its port."""
