# SPDX-License-Identifier: Apache-2.0
"""One folder for each contender: the pins of its environment, and the program that drives it.

The programs run in their own environments, so nothing here may import anything but the standard library and the peer.
"""
