-- What is known about tasks, as of one moment.
--
-- KEYS: records scheduled running history blocked progress
-- ARGV: (none)
--   then the ids
--
-- Guarantee: the parts fit together: no task is seen in two states or in none.
--
-- Returns {records, holds, pasts, due times, open parents, progress}, each with one element for each id, nil where there
-- is none.

local keys = {}
for i, id in ipairs(ARGV) do
  keys[i] = records .. id
end
return {
  redis.call('MGET', unpack(keys)),
  redis.call('HMGET', running, unpack(ARGV)),
  redis.call('HMGET', history, unpack(ARGV)),
  redis.call('ZMSCORE', scheduled, unpack(ARGV)),
  redis.call('HMGET', blocked, unpack(ARGV)),
  redis.call('HMGET', progress, unpack(ARGV)),
}
