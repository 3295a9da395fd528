# SPDX-License-Identifier: Apache-2.0
"""The operations of admins: keys, and the audit log."""

from typing import Annotated

from fastapi import Path, Query, Request, Response
from pydantic import TypeAdapter

from agent_runtime.adapters.http.answers import as_json, as_json_list
from agent_runtime.adapters.http.body import ENVELOPE_BYTES, parsed
from agent_runtime.adapters.http.callers import guarded
from agent_runtime.adapters.http.models import AuditLog, AuditQuery
from kubeagents_api.access import KeyInfo, KeyRequest

KeyPath = Annotated[str, Path(description="Id of the key.")]
_KEYS = TypeAdapter(list[KeyInfo])


class Administration:
    """What needs the role `admin`."""

    async def make_key(self, request: Request) -> Response:
        """Make an API key. The answer has it, and it is not shown again."""
        wanted = await parsed(request, KeyRequest, limit=ENVELOPE_BYTES, advice="send the fields of a key")
        return as_json(await guarded().make_key(wanted), status=201, headers={"cache-control": "no-store"})

    async def keys(self) -> Response:
        """The API keys that were made here, also those that have expired. Those of Secrets are not among them."""
        return as_json_list(_KEYS, await guarded().keys())

    async def revoke_key(self, key: KeyPath) -> Response:
        """End an API key. Within seconds no pod takes it any more, and streams that were opened with it end."""
        await guarded().revoke_key(key)
        return Response(status_code=204)

    async def audit(self, query: Annotated[AuditQuery, Query()]) -> Response:
        """Who has changed what, and who was refused: the newest 10,000 entries, oldest first, page by page."""
        found = await guarded().audit(after=query.after, limit=query.limit)
        entries = [entry for _, entry in found]
        return as_json(AuditLog(entries=entries, next=found[-1][0] if found else query.after))
