local suspended = obj.spec.suspend == true
local waits = false
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  if condition.type == "CanaryHealthy" and condition.reason == "CanaryWaiting" then
    waits = true
  end
end

local actions = {}
actions["pause"] = { ["disabled"] = suspended }
actions["resume"] = { ["disabled"] = not suspended }
actions["restart"] = { ["disabled"] = suspended }
-- A step of a rollout that has no pauseSeconds waits for somebody.
actions["promote"] = { ["disabled"] = not waits }
return actions
