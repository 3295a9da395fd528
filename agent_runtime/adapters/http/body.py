# SPDX-License-Identifier: Apache-2.0
"""Reading a JSON body: measured while it arrives, checked strictly, parsed once."""

from typing import TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError

from agent_runtime.adapters.http.errors import RefusedError, invalid

Model = TypeVar("Model", bound=BaseModel)

ENVELOPE_BYTES = 64 * 1024
"""What a task may have besides its payload."""
BATCH_BYTES = 32 * 1024 * 1024
"""The body of a batch."""


async def parsed(request: Request, model: type[Model], *, limit: int, advice: str) -> Model:
    """The body as a model.

    Raises RefusedError: 415 if it is not said to be JSON, 413 with `advice` if it is over `limit` bytes, 400 if it is
    no JSON or does not fit.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also keeps web pages of others from posting here: a browser asks before it sends this type across origins.
        raise RefusedError(
            415, "UNSUPPORTED_MEDIA_TYPE", f"the body is {kind or 'of no type'}: send Content-Type: application/json"
        )
    raw = await _read(request, limit=limit, advice=advice)
    try:
        # Strict JSON first: pydantic would let NaN and 1e999 pass, and they would reach the handler as null.
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "INVALID_JSON", f"the body is no JSON: {error}") from error
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise invalid(list(error.errors(include_input=False, include_url=False)), where="the body") from error


async def _read(request: Request, *, limit: int, advice: str) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit, advice, f"{announced} bytes")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit, advice, f"more than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int, advice: str, found: str) -> RefusedError:
    return RefusedError(
        413, "BODY_TOO_LARGE", f"the body has {found}, the limit is {limit}: {advice}", details={"limitBytes": limit}
    )
