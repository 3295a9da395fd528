-- Who has sent heartbeats, longest silent first.
--
-- KEYS: instances beats
-- ARGV: (none)
--
-- Guarantee: as of one moment.
--
-- Returns {the server's time in ms, instances with the time of their last beat, their infos}.

-- @include clock

local known = redis.call('ZRANGE', instances, 0, -1, 'WITHSCORES')
local infos = {}
for i = 1, #known, 2 do
  infos[#infos + 1] = redis.call('HGET', beats, known[i])
end
return { clock(), known, infos }
