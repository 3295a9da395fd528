# SPDX-License-Identifier: Apache-2.0
"""Measurements. Each writes what it found, with a description of the machine, under build/bench/."""
