-- What Agents have said about themselves.
--
-- KEYS: interfaces described
-- ARGV: (none)
--
-- Guarantee: as of one moment.
--
-- Returns {digests with the time at which they were named last, what they stand for}.

local known = redis.call('ZRANGE', described, 0, -1, 'WITHSCORES')
local texts = {}
for i = 1, #known, 2 do
  texts[#texts + 1] = redis.call('HGET', interfaces, known[i]) or ''
end
return { known, texts }
