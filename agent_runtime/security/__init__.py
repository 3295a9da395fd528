# SPDX-License-Identifier: Apache-2.0
"""Who may do what: the same for every protocol.

credentials ──Authenticator──► Caller ──Rates──► GuardedCore ──permissions──► Core
                                                    └── Audit
"""

from agent_runtime.security.audit import Audit
from agent_runtime.security.authenticator import Authenticator, Identities
from agent_runtime.security.caller import Caller, ClientCertificate, Credentials
from agent_runtime.security.certificates import Certificates, parse_certificate
from agent_runtime.security.guard import Guard, GuardedCore
from agent_runtime.security.issuer_keys import IssuerKeys, issuer_keys
from agent_runtime.security.key_files import KeyFiles
from agent_runtime.security.one_agent import OfOneAgent
from agent_runtime.security.peers import Peers
from agent_runtime.security.rates import Rates
from agent_runtime.security.runtime_keys import RuntimeKeys
from agent_runtime.security.tls import Material, Tls
from agent_runtime.security.tokens import Tokens

__all__ = [
    "Audit",
    "Authenticator",
    "Caller",
    "Certificates",
    "ClientCertificate",
    "Credentials",
    "Guard",
    "GuardedCore",
    "Identities",
    "IssuerKeys",
    "KeyFiles",
    "Material",
    "OfOneAgent",
    "Peers",
    "Rates",
    "RuntimeKeys",
    "Tls",
    "Tokens",
    "issuer_keys",
    "parse_certificate",
]
