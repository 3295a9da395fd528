local suspended = obj.spec.suspend == true
local led = false
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  if condition.type == "LeaderElected" and condition.status == "True" then
    led = true
  end
end

local actions = {}
actions["pause"] = { ["disabled"] = suspended }
actions["resume"] = { ["disabled"] = not suspended }
actions["restart"] = { ["disabled"] = suspended }
actions["step-down"] = { ["disabled"] = suspended or not led }
return actions
