-- Forget instances: one that leaves, or all that have been silent for too long.
--
-- KEYS: instances beats
-- ARGV: instance silent_ms
-- Only one of the two is set, the other is ''.
--
-- Guarantee: an instance whose beat arrives in between is kept, since the script compares and removes in one step.
--
-- Returns the names of those forgotten.

-- @include clock

local names = { instance }
if instance == '' then
  names = redis.call('ZRANGEBYSCORE', instances, '-inf', '(' .. digits(clock() - silent_ms))
end
local forgotten = {}
for _, name in ipairs(names) do
  if redis.call('ZREM', instances, name) == 1 then
    forgotten[#forgotten + 1] = name
  end
  redis.call('HDEL', beats, name)
end
return forgotten
