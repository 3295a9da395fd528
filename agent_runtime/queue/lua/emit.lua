-- Add to what an attempt says while it runs.
--
-- KEYS: records running said progress saying
-- ARGV: id token keep_items ttl_s
--   then 2 for each item: kind (progress or partial), data as JSON
--
-- Guarantee: only whoever holds the token is heard. Items keep their order. What the task said is kept for `ttl_s` after
-- the last item, and not more than about `keep_items` of it.
--
-- Returns 1 HELD, or 0 NOT_HELD.

-- @include clock
-- @include record

local NOT_HELD, HELD = 0, 1
local FIRST = 5
local hold = redis.call('HGET', running, id)
if token_of(hold) ~= token then
  return NOT_HELD
end
local stream, attempt = said .. id, attempt_of(hold)
redis.call('HSETNX', progress, id, 'null') -- for whoever ends the task: it has said something
for i = FIRST, #ARGV, 2 do
  redis.call('XADD', stream, 'MAXLEN', '~', keep_items, '*', 'k', ARGV[i], 'a', attempt, 'd', ARGV[i + 1])
  if ARGV[i] == 'progress' then
    redis.call('HSET', progress, id, '{"at":' .. digits(clock()) .. ',' .. string.sub(ARGV[i + 1], 2))
  end
end
redis.call('EXPIRE', stream, ttl_s)
redis.call('PUBLISH', saying, id)
return HELD
