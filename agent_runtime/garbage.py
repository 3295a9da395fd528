# SPDX-License-Identifier: Apache-2.0
"""The collector of cyclic garbage, told what our processes are like.

By its own rules it looks through everything that has ever been imported, again and again: some 150 ms for a
CentralAgent with all its protocols, during which nobody is answered.
"""

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 50, 50)
"""A request, or an event of the API server, is hundreds of objects that die at once, without the collector's help: with
its own thresholds it looks for garbage with every second one."""


def spare_what_stays() -> None:
    """Leave alone what there is now, such as modules and caches, and look for garbage less often. Call it once all is
    loaded."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
