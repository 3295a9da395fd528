-- Record how attempts ended: with a result, for good without one, or with another try to come.
--
-- KEYS: records ready wake lanes scheduled leases running history dead totals done
-- ARGV: result_ttl_s
--   then runs of neighbours that end the same way: kind, token, delay_ms, length,
--   and for each attempt of the run: id, body
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
local now = clock()
local now_text = digits(now)

local ids, keys, bodies, runs = {}, {}, {}, {}
local at, count = FIRST, 0
while at <= #ARGV do
  local length = tonumber(ARGV[at + 3])
  runs[#runs + 1] = {
    kind = ARGV[at], token = ARGV[at + 1], delay = tonumber(ARGV[at + 2]), first = count + 1, last = count + length,
  }
  at = at + 4
  for _ = 1, length do
    count = count + 1
    ids[count] = ARGV[at]
    keys[count] = records .. ARGV[at]
    bodies[count] = ARGV[at + 1]
    at = at + 2
  end
end
local holds = redis.call('HMGET', running, unpack(ids))
local texts = redis.call('MGET', unpack(keys))
local any_past = redis.call('EXISTS', history) == 1
local settled_with = {}
local finished, died, succeeded = {}, {}, 0

-- Whether the attempt has been settled before, in this call or in an earlier one.
local function was_settled(n, token)
  local mark = '"token":"' .. token .. '"'
  local past = redis.call('HGET', history, ids[n])
  return settled_with[ids[n]] == token
    or texts[n] and string.find(texts[n], mark, 1, true)
    or past and string.find(past, mark, 1, true)
end

-- Add the failure to the task's past. Returns all failures and the place of the task.
local function fail(n)
  local attempt, place = string.match(holds[n], HOLD)
  any_past = true
  return remember(ids[n], attempt, place, open(holds[n]) .. ',"at":' .. now_text .. ',' .. bodies[n] .. '}'), place
end

local function retry(n, delay)
  local _, place = fail(n)
  if delay > 0 then
    redis.call('ZADD', scheduled, digits(now + delay), ids[n])
    ring('')
  else
    local _, agent = head_of(ids[n])
    requeue(ids[n], agent, place)
  end
end

local function earlier_failures(n)
  local past = any_past and redis.call('HGET', history, ids[n])
  if not past then
    return ''
  end
  local _, _, failures = string.match(past, PAST)
  return failures
end

local function finish(n, kind, ending)
  finished[#finished + 1] = ids[n]
  local failures, closing
  if kind == 'succeeded' then
    succeeded = succeeded + 1
    failures, closing = earlier_failures(n), '],"result":' .. bodies[n] .. '}}'
  else
    failures, closing = fail(n), ']}}'
  end
  local outcome = string.sub(texts[n], 1, -2) .. ',"outcome":' .. open(holds[n]) .. ending .. failures .. closing
  if kind == 'dead' then
    died[#died + 1] = now_text
    died[#died + 1] = ids[n]
    redis.call('SET', keys[n], outcome)
  else
    redis.call('SET', keys[n], outcome, 'EX', result_ttl_s)
  end
end

local replies, ended = {}, {}
for _, run in ipairs(runs) do
  local kind, token = run.kind, run.token
  local ending = ',"at":' .. now_text .. ',"state":"' .. kind .. '","failures":['
  for n = run.first, run.last do
    local id = ids[n]
    if settled_with[id] or token_of(holds[n]) ~= token then
      replies[n] = was_settled(n, token) and REPEATED or REFUSED
    else
      settled_with[id] = token
      ended[#ended + 1] = id
      replies[n] = ACCEPTED
      if not texts[n] then
        replies[n] = GONE
        redis.call('HDEL', history, id)
      elseif kind == 'retry' then
        retry(n, run.delay)
      else
        finish(n, kind, ending)
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
  if any_past then
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
