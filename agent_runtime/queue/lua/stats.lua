-- The figures of the queue.
--
-- KEYS: records ready wake lanes scheduled leases running history dead totals done
-- ARGV: (none)
--
-- Guarantee: moves what is due first, so that the figures are right even where no worker claims (scaled to zero).
--
-- Returns {queued, running, scheduled, dead, succeeded in all, failed in all, time of the oldest queued task or -1}.

-- @include clock
-- @include lane
-- @include record
-- @include tidy

local TIDY_BOUND = 1000
tidy(clock(), TIDY_BOUND)

local names = redis.call('SMEMBERS', lanes)
names[#names + 1] = ''
local queued, oldest = 0, -1
for _, lane in ipairs(names) do
  local size = redis.call('ZCARD', ready .. lane)
  queued = queued + size
  if size == 0 then
    redis.call('SREM', lanes, lane)
  end
  -- Inside a priority the first is the oldest: at most ten looks, and as many as there are priorities in use.
  local from = '-inf'
  while size > 0 do
    local first = redis.call('ZRANGEBYSCORE', ready .. lane, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then
      break
    end
    local at = tonumber(string.match(redis.call('GETRANGE', records .. first[1], 0, 63), '^{"task":{"at":(%d+)'))
    if at and (oldest < 0 or at < oldest) then
      oldest = at
    end
    from = digits((math.floor(first[2] / PRIORITY_SPAN) + 1) * PRIORITY_SPAN)
  end
end
local counts = redis.call('HMGET', totals, 'succeeded', 'failed')
return {
  queued,
  redis.call('ZCARD', leases),
  redis.call('ZCARD', scheduled),
  redis.call('ZCARD', dead),
  tonumber(counts[1] or 0),
  tonumber(counts[2] or 0),
  oldest,
}
