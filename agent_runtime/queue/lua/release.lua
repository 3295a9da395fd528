-- Give running tasks back, to the places they had, without spending an attempt.
--
-- KEYS: records ready wake lanes leases running history
-- ARGV: (none)
--   then 2 for each task: id, token
--
-- Guarantee: only whoever holds the token gives a task back; anything else changes nothing, so that repeating is safe.
--
-- Returns one number for each task: 1 HELD (and given back), 0 NOT_HELD.

-- @include lane
-- @include record

local held = {}
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local hold = redis.call('HGET', running, id)
  if token_of(hold) == ARGV[i + 1] then
    redis.call('HDEL', running, id)
    redis.call('ZREM', leases, id)
    local _, agent = head_of(id)
    if agent then
      local _, place = string.match(hold, HOLD)
      requeue(id, agent, place)
    else
      redis.call('HDEL', history, id)
    end
    held[#held + 1] = 1
  else
    held[#held + 1] = 0
  end
end
return held
