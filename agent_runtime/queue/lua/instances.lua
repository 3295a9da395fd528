-- Who has sent heartbeats, longest silent first.
--
-- KEYS: instances beats cordons
-- ARGV: (none)
--
-- Guarantee: as of one moment.
--
-- Returns {the server's time in ms, instances with the time of their last beat, their infos, who has cordoned them}; the
-- last as JSON, or '' for nobody.

-- @include clock

local known = redis.call('ZRANGE', instances, 0, -1, 'WITHSCORES')
local any_cordon = redis.call('EXISTS', cordons) == 1
local infos, orders = {}, {}
for i = 1, #known, 2 do
  infos[#infos + 1] = redis.call('HGET', beats, known[i])
  orders[#orders + 1] = any_cordon and redis.call('HGET', cordons, known[i]) or ''
end
return { clock(), known, infos, orders }
