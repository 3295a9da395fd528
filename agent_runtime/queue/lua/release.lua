-- Give running tasks back, to the places they had, without spending an attempt.
--
-- KEYS: records ready wake lanes lines lined parked positions tenants leases running history progress totals events capped
-- ARGV: keep
--   then 2 for each task: id, token
--
-- Guarantee: only whoever holds the token gives a task back; anything else changes nothing, so that repeating is safe.
--
-- Returns one number for each task: 1 HELD (and given back), 0 NOT_HELD.

-- @include clock
-- @include lane
-- @include record
-- @include events

local FIRST = 2
local now = clock()
local held = {}
for i = FIRST, #ARGV, 2 do
  local id = ARGV[i]
  local hold = redis.call('HGET', running, id)
  if token_of(hold) == ARGV[i + 1] then
    redis.call('HDEL', running, id)
    redis.call('ZREM', leases, id)
    redis.call('HDEL', progress, id)
    make_room(tenant_of(hold))
    local head = head_of(id)
    if head then
      local attempt, place = string.match(hold, HOLD)
      line_up(id, head.lane, head.tenant, place)
      note('released', worker_of(hold), id, attempt, now - started_of(hold))
    else
      redis.call('HDEL', history, id)
      redis.call('HINCRBY', totals, 'lost', 1)
    end
    held[#held + 1] = 1
  else
    held[#held + 1] = 0
  end
end
open_the_cap()
record_events()
return held
