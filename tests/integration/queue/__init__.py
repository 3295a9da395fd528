# SPDX-License-Identifier: Apache-2.0
"""The task queue on real Redis and Valkey servers."""
