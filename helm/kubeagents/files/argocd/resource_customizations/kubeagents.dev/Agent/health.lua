-- The status is in the format of kstatus: observedGeneration, and the conditions Ready, Reconciling and Stalled.
-- A rolling update, a change of leaders or an eviction that heals itself keeps Reconciling; Stalled means that somebody
-- has to help. Objects under deletion do not get here: Argo CD shows them as Progressing by itself.
-- The same text for all kinds of kubeagents.dev, because Argo CD knows no includes.
local health = {}
local status = obj.status
if status == nil or status.observedGeneration == nil or status.observedGeneration == -1 then
  health.status = "Progressing"
  health.message = "The operator has not seen the object yet"
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.status = "Progressing"
  health.message = "The operator has not seen the latest change yet"
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function is(type, wanted)
  return conditions[type] ~= nil and conditions[type].status == wanted
end
local function text(type)
  local condition = conditions[type]
  if condition.message == nil or condition.message == "" then
    return condition.reason
  end
  return condition.reason .. ": " .. condition.message
end

if (obj.spec ~= nil and obj.spec.suspend == true) or is("Suspended", "True") then
  health.status = "Suspended"
  health.message = "Suspended"
  if is("Suspended", "True") then
    health.message = text("Suspended")
  end
  if is("Stalled", "True") then
    health.message = health.message .. "; also " .. text("Stalled")
  end
elseif is("Stalled", "True") then
  health.status = "Degraded"
  health.message = text("Stalled")
elseif is("Ready", "True") then
  health.status = "Healthy"
  health.message = text("Ready")
  -- What somebody should look at although the object does its job.
  local warnings = {
    { "Backlogged", "True" }, { "DeadLettering", "True" }, { "Accepting", "False" }, { "Routable", "False" },
    { "SchedulesServed", "False" }, { "StorageHealthy", "False" }, { "CanaryHealthy", "False" },
  }
  for _, warning in ipairs(warnings) do
    if is(warning[1], warning[2]) then
      health.message = health.message .. "; " .. text(warning[1])
    end
  end
elseif is("Reconciling", "True") then
  health.status = "Progressing"
  health.message = text("Reconciling")
elseif is("Ready", "False") then
  health.status = "Degraded"
  health.message = text("Ready")
else
  health.status = "Progressing"
  health.message = "The operator has not said yet how the object is"
end
return health
