# SPDX-License-Identifier: Apache-2.0
"""Argo CD's use of Lua: health checks, and actions that users start. With a real Lua, in as narrow a sandbox as theirs.

The sandbox has the base library and `table`; `require("os")` has `time` and `date` only; there is no `string`, `math`,
`io` or `debug`. An object goes in as the global `obj`, and what a script returns is made JSON again as Argo CD does it:
Lua does not know an empty map from an empty list, so an empty table is what it was in the object before, and a list if
it is new.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

from tests.support.cluster import ROOT, Object

CUSTOMIZATIONS = ROOT / "helm/kubeagents/files/argocd/resource_customizations/kubeagents.dev"

_NARROW = """
local os_time, os_date = os.time, os.date
package.preload["os"] = function() return { time = os_time, date = os_date } end
for _, name in ipairs({ "os", "io", "string", "math", "debug", "coroutine", "python" }) do
  _G[name], package.loaded[name] = nil, nil
end
getmetatable("").__index = nil
"""


def health(kind: str, obj: Object) -> tuple[str, str]:
    """Health and message of an object of ours. Argo CD answers by itself for those that are being deleted."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Progressing", "Pending deletion"
    answer = run(CUSTOMIZATIONS / kind / "health.lua", obj)
    return answer["status"], answer["message"]


def discover(kind: str, obj: Object) -> dict[str, bool]:
    """Action -> whether it is enabled."""
    found = run(CUSTOMIZATIONS / kind / "actions/discovery.lua", obj)
    return {name: not action.get("disabled", False) for name, action in found.items()}


def act(kind: str, action: str, obj: Object) -> Object:
    """The object after an action, which Argo CD would send as a patch."""
    changed: Object = run(CUSTOMIZATIONS / kind / "actions" / action / "action.lua", obj)
    return changed


def run(script: Path, obj: Object) -> Any:
    """What a script returns for an object. Raises lupa.LuaError if it fails."""
    lua = LuaRuntime()
    lua.execute(_NARROW)
    lua.globals()["obj"] = _to_lua(lua, obj)
    return _from_lua(lua.execute(script.read_text(encoding="utf-8")), obj)


def _to_lua(lua: LuaRuntime, value: Any) -> Any:
    if isinstance(value, Mapping):
        return lua.table_from({key: _to_lua(lua, item) for key, item in value.items()})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, item) for item in value])
    return value


def _from_lua(value: Any, before: Any) -> Any:
    """JSON of a Lua value. `before`: what was at the same place."""
    if lua_type(value) != "table":
        return value
    items = dict(value.items())
    if not items:
        return {} if isinstance(before, Mapping) else []
    if set(items) == set(range(1, len(items) + 1)):
        old = before if isinstance(before, list) else []
        return [_from_lua(items[i], old[i - 1] if i <= len(old) else None) for i in range(1, len(items) + 1)]
    old_map = before if isinstance(before, Mapping) else {}
    return {key: _from_lua(item, old_map.get(key)) for key, item in items.items()}
