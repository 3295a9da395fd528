# SPDX-License-Identifier: Apache-2.0
"""Reading the parameters of a call: checked strictly, from the frame as it came."""

from functools import cache
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from agent_runtime.adapters.calls.errors import InvalidCallError, faults_said
from kubeagents_api.model import ApiModel

P = TypeVar("P", bound=ApiModel)


def parameters(kind: type[P], frame: str | bytes | None) -> P:
    """The parameters in a frame; None stands for one that has none. Raises InvalidCallError."""
    try:
        if frame is None:
            return kind.model_validate_json("{}", strict=True)
        params: P = _frame(kind).model_validate_json(frame, strict=True).params  # type: ignore[attr-defined]
        return params
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        said, details = faults_said(faults, skip=0 if frame is None else 1)
        raise InvalidCallError(f"the parameters are not valid: {said}", details=details) from error


@cache
def _frame(kind: type[ApiModel]) -> type[BaseModel]:
    return create_model(f"{kind.__name__}Frame", __config__=ConfigDict(extra="ignore"), params=(kind, ...))
