-- Renew the leases of running tasks.
--
-- KEYS: leases running
-- ARGV: lease_ms
--   then 2 for each task: id, token
--
-- Guarantee: only whoever holds the token renews; a lease that is over but not yet taken back is renewed too.
--
-- Returns one number for each task: 1 HELD, 0 NOT_HELD.

-- @include clock
-- @include record

local FIRST = 2
local expiry = digits(clock() + lease_ms)
local held = {}
for i = FIRST, #ARGV, 2 do
  if token_of(redis.call('HGET', running, ARGV[i])) == ARGV[i + 1] then
    redis.call('ZADD', leases, expiry, ARGV[i])
    held[#held + 1] = 1
  else
    held[#held + 1] = 0
  end
end
return held
