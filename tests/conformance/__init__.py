# SPDX-License-Identifier: Apache-2.0
"""What every implementation of a seam must do."""
