# SPDX-License-Identifier: Apache-2.0
"""Who may do what: the same for every protocol.

credentials ──Authenticator──► Caller ──Rates──► GuardedCore ──permissions──► Core
                                                    └── Audit
"""

from agent_runtime.security.audit import Audit
from agent_runtime.security.authenticator import Authenticator, KeyAuthenticator
from agent_runtime.security.caller import Caller, Credentials
from agent_runtime.security.guard import Guard, GuardedCore
from agent_runtime.security.key_files import KeyFiles
from agent_runtime.security.peers import Peers
from agent_runtime.security.rates import Rates
from agent_runtime.security.runtime_keys import RuntimeKeys

__all__ = [
    "Audit",
    "Authenticator",
    "Caller",
    "Credentials",
    "Guard",
    "GuardedCore",
    "KeyAuthenticator",
    "KeyFiles",
    "Peers",
    "Rates",
    "RuntimeKeys",
]
