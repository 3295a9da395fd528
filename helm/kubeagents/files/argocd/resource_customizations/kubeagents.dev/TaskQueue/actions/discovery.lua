local paused = obj.spec.paused == true
local closed = obj.spec.closed == true
local dead = (obj.status or {}).dead or 0

local actions = {}
actions["pause"] = { ["disabled"] = paused }
actions["resume"] = { ["disabled"] = not paused }
-- New tasks are refused, what is there is worked off; then the condition Drained is True.
actions["drain"] = { ["disabled"] = closed }
actions["reopen"] = { ["disabled"] = not closed }
actions["replay-dead"] = { ["disabled"] = dead == 0 }
return actions
