-- Forget instances: one that leaves, or all that have been silent for too long.
--
-- KEYS: wake instances beats cordons interfaces described
-- ARGV: instance silent_ms
-- Only one of the two is set, the other is ''.
--
-- Guarantee: an instance whose beat arrives in between is kept, since the script compares and removes in one step. The
-- orders of those forgotten are gone with them, and those of instances that never showed up after an hour. What Agents
-- have said about themselves is gone a day after it was said last.
--
-- Returns the names of those forgotten.

-- @include clock

local PATIENCE_MS = 3600 * 1000
local KEPT_MS = 24 * 3600 * 1000

local function forget_orders(name)
  redis.call('HDEL', cordons, name)
  redis.call('DEL', wake .. 'i:' .. name)
end

local names = { instance }
if instance == '' then
  local now = clock()
  names = redis.call('ZRANGEBYSCORE', instances, '-inf', '(' .. digits(now - silent_ms))
  local entries = redis.call('HGETALL', cordons)
  for i = 1, #entries, 2 do
    local since = 0
    for _, at in pairs(cjson.decode(entries[i + 1])) do
      since = math.max(since, tonumber(at))
    end
    if since + PATIENCE_MS < now and not redis.call('ZSCORE', instances, entries[i]) then
      forget_orders(entries[i])
    end
  end
  for _, digest in ipairs(redis.call('ZRANGEBYSCORE', described, '-inf', '(' .. digits(now - KEPT_MS))) do
    redis.call('ZREM', described, digest)
    redis.call('HDEL', interfaces, digest)
  end
end
local forgotten = {}
for _, name in ipairs(names) do
  if redis.call('ZREM', instances, name) == 1 then
    forgotten[#forgotten + 1] = name
  end
  redis.call('HDEL', beats, name)
  forget_orders(name)
end
return forgotten
