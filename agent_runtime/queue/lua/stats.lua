-- The figures of the queue.
--
-- KEYS: records ready wake lanes lines lined parked positions tenants rates scheduled leases running history deadlines blocked kids parents heirs chunks progress said dead totals events gates capped full room done revoked
-- ARGV: keep result_ttl_s
--
-- Guarantee: moves what is due first, so that the figures are right even where no worker claims (scaled to zero).
--
-- Returns {running, scheduled, blocked, dead, totals, lanes with their sizes and the times of their oldest tasks or -1,
-- gates, the server's time in ms}.

-- @include clock
-- @include lane
-- @include record
-- @include events
-- @include heirs
-- @include ending
-- @include tidy

local TIDY_BOUND = 1000
local now = clock()
tidy(now, TIDY_BOUND)
publish_ends()
record_events()
redis.call('ZREMRANGEBYSCORE', rates, '-inf', digits(now))

local sizes, oldest = {}, {}
local function look_at(lane, line)
  -- Inside a priority the first is the oldest: at most ten looks, and as many as there are priorities in use.
  local from = '-inf'
  while true do
    local first = redis.call('ZRANGEBYSCORE', line, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then
      return
    end
    local at = tonumber(string.match(redis.call('GETRANGE', records .. first[1], 0, 63), '^{"task":{"at":(%d+)'))
    if at and at < (oldest[lane] or math.huge) then
      oldest[lane] = at
    end
    from = digits(band(first[2]) + PRIORITY_SPAN)
  end
end

for _, line in ipairs(redis.call('SMEMBERS', lined)) do
  local _, lane = tenant_and_lane(line)
  -- The tenant's own mark counts as a member of its lane, unless the tenant is parked.
  local mark = redis.call('ZSCORE', parked, line) and 0 or 1
  sizes[lane] = (sizes[lane] or 0) + redis.call('ZCARD', lines .. line) - mark
  look_at(lane, lines .. line)
end
local names = redis.call('SMEMBERS', lanes)
names[#names + 1] = ''
for _, lane in ipairs(names) do
  sizes[lane] = (sizes[lane] or 0) + redis.call('ZCARD', ready .. lane)
  if sizes[lane] == 0 then
    redis.call('SREM', lanes, lane)
  else
    look_at(lane, ready .. lane)
  end
end
local listed = {}
for lane, size in pairs(sizes) do
  listed[#listed + 1] = lane
  listed[#listed + 1] = size
  listed[#listed + 1] = oldest[lane] or -1
end
return {
  redis.call('ZCARD', leases),
  redis.call('ZCARD', scheduled),
  redis.call('HLEN', blocked),
  redis.call('ZCARD', dead),
  redis.call('HMGET', totals, 'submitted', 'succeeded', 'failed', 'cancelled', 'expired'),
  listed,
  redis.call('HKEYS', gates),
  now,
}
