-- Record how attempts ended: with a result, for good without one, or with another try to come.
--
-- KEYS: records ready wake lanes scheduled leases running history dead totals done
-- ARGV: result_ttl_s
--   then 5 for each attempt: kind, id, token, body, delay_ms
-- `kind` is succeeded, failed, dead or retry. `body` is the result as JSON if succeeded, otherwise the members
-- `"code":…,"message":…` of the failure. `delay_ms` counts for retry only.
--
-- Guarantee: a task becomes final once: its outcome is added to its record in the same step that ends its lease. A
-- stale token changes nothing. A repeated call, because the reply got lost, is answered as the first one was: the
-- token is kept in the outcome and in each failure.
--
-- Returns one number for each attempt: 0 REFUSED (not held), 1 ACCEPTED, 2 REPEATED (was accepted before),
-- 3 GONE (held, but the record is gone).

-- @include clock
-- @include lane
-- @include record

local REFUSED, ACCEPTED, REPEATED, GONE = 0, 1, 2, 3
local FIRST = 2
local PER_ATTEMPT = 5
local count = (#ARGV - FIRST + 1) / PER_ATTEMPT
local now = clock()
local now_text = digits(now)
local ending = ',"at":' .. now_text .. ',"state":"'

local ids, keys = {}, {}
for n = 1, count do
  ids[n] = ARGV[FIRST + (n - 1) * PER_ATTEMPT + 1]
  keys[n] = records .. ids[n]
end
local holds = redis.call('HMGET', running, unpack(ids))
local texts = redis.call('MGET', unpack(keys))
local pasts = redis.call('EXISTS', history) == 1

local replies = {}
local ended, finished, died = {}, {}, {}
local succeeded = 0
local seen = {}
for n = 1, count do
  local at = FIRST + (n - 1) * PER_ATTEMPT
  local id, hold, text = ids[n], holds[n], texts[n]
  local kind, token, body = ARGV[at], ARGV[at + 2], ARGV[at + 3]
  if token_of(hold) ~= token or seen[id] then
    local mark = '"token":"' .. token .. '"'
    local past = redis.call('HGET', history, id)
    local before = seen[id] == token or text and string.find(text, mark, 1, true)
      or past and string.find(past, mark, 1, true)
    replies[n] = before and REPEATED or REFUSED
  else
    seen[id] = token
    ended[#ended + 1] = id
    replies[n] = text and ACCEPTED or GONE
    local failures = ''
    if not text then
      redis.call('HDEL', history, id)
    elseif kind ~= 'succeeded' then
      local attempt, place = string.match(hold, HOLD)
      failures = remember(id, attempt, place, open(hold) .. ',"at":' .. now_text .. ',' .. body .. '}')
      pasts = true
      if kind == 'retry' then
        local delay = tonumber(ARGV[at + 4])
        if delay > 0 then
          redis.call('ZADD', scheduled, digits(now + delay), id)
          ring('')
        else
          local _, agent = head_of(id)
          requeue(id, agent, place)
        end
      end
    elseif pasts then
      local past = redis.call('HGET', history, id)
      if past then
        local _, _, known = string.match(past, PAST)
        failures = known
      end
    end
    if text and kind ~= 'retry' then
      finished[#finished + 1] = id
      local outcome = string.sub(text, 1, -2) .. ',"outcome":' .. open(hold) .. ending .. kind .. '","failures":['
        .. failures .. (kind == 'succeeded' and '],"result":' .. body .. '}}' or ']}}')
      if kind == 'dead' then
        redis.call('SET', keys[n], outcome)
        died[#died + 1] = now_text
        died[#died + 1] = id
      else
        redis.call('SET', keys[n], outcome, 'EX', result_ttl_s)
      end
      if kind == 'succeeded' then
        succeeded = succeeded + 1
      end
    end
  end
end

if #ended > 0 then
  redis.call('HDEL', running, unpack(ended))
  redis.call('ZREM', leases, unpack(ended))
end
if #died > 0 then
  redis.call('ZADD', dead, unpack(died))
end
if #finished > 0 then
  if pasts then
    redis.call('HDEL', history, unpack(finished))
  end
  if succeeded > 0 then
    redis.call('HINCRBY', totals, 'succeeded', succeeded)
  end
  if succeeded < #finished then
    redis.call('HINCRBY', totals, 'failed', #finished - succeeded)
  end
  redis.call('PUBLISH', done, table.concat(finished, ' '))
end
return replies
