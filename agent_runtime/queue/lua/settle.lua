-- Record how attempts ended: with a result, for good without one, or with another try to come.
--
-- KEYS: records ready wake lanes lines lined parked positions tenants scheduled leases running history deadlines blocked kids parents heirs chunks progress said dead totals events capped full room done
-- ARGV: keep result_ttl_s
--   then runs of neighbours that end the same way: kind, token, delay_ms, length,
--   and for each attempt of the run: id, body
-- `kind` is succeeded, failed, dead or retry. `body` is the member `"result":…` (or where the result is) if succeeded,
-- otherwise the members `"code":…,"message":…` of the failure. `delay_ms` counts for retry only.
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
-- @include events
-- @include heirs
-- @include ending

local REFUSED, ACCEPTED, REPEATED, GONE = 0, 1, 2, 3
local FIRST = 3
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
local pasts = redis.call('EXISTS', history) == 1 and redis.call('HMGET', history, unpack(ids)) or {}
local any_tenant = redis.call('EXISTS', tenants) == 1
local any_progress = redis.call('EXISTS', progress) == 1
local settled_with, ended = {}, {}

-- Whether the attempt has been settled before, in this call or in an earlier one.
local function was_settled(n, token)
  local mark = '"token":"' .. token .. '"'
  local past = redis.call('HGET', history, ids[n])
  return settled_with[ids[n]] == token
    or texts[n] and string.find(texts[n], mark, 1, true)
    or past and string.find(past, mark, 1, true)
end

-- Add the failure to the task's past. Returns all failures, replays, and the place of the task.
local function fail(n)
  local attempt, place = string.match(holds[n], HOLD)
  local failures, replays =
    remember(ids[n], attempt, place, open(holds[n]) .. ',"at":' .. now_text .. ',' .. bodies[n] .. '}')
  return failures, replays, place
end

local function retry(n, delay)
  local _, _, place = fail(n)
  if delay > 0 then
    redis.call('ZADD', scheduled, digits(now + delay), ids[n])
    ring('')
  else
    local head = head_of_text(texts[n])
    line_up(ids[n], head.lane, head.tenant, place)
  end
end

-- Most tasks succeed, and have no past, no children and nothing beside their record: what they need, without detours.
local simple_ending = ',"at":' .. now_text .. ',"state":"succeeded","failures":[],'
local function succeed(n)
  local text = texts[n]
  redis.call('SET', keys[n], string.sub(text, 1, -2) .. ',"outcome":' .. string.sub(holds[n], 1, -2) .. simple_ending
    .. bodies[n] .. '},"cut":' .. #text .. '}', 'EX', result_ttl_s)
  ended_ids[#ended_ids + 1] = ids[n]
end

local function conclude(n, kind, ending)
  local _, _, replays, failures = past_of(ids[n])
  local closing = ']}'
  if kind == 'succeeded' then
    closing = '],' .. bodies[n] .. '}'
  else
    failures, replays = fail(n)
  end
  finish(ids[n], texts[n], kind, open(holds[n]) .. ending .. ',"replays":' .. replays .. ',"failures":[' .. failures
    .. closing, now)
end

local replies, succeeded, any_blocked = {}, 0, someone_is_blocked()
for _, run in ipairs(runs) do
  local kind, token = run.kind, run.token
  local ending = ',"at":' .. now_text .. ',"state":"' .. kind .. '"'
  local event, quick = kind == 'retry' and 'retrying' or kind, kind == 'succeeded'
  local firsts, by, ms = {}, nil, nil
  for n = run.first, run.last do
    local id, hold = ids[n], holds[n]
    if settled_with[id] or token_of(hold) ~= token then
      replies[n] = was_settled(n, token) and REPEATED or REFUSED
    else
      settled_with[id] = token
      ended[#ended + 1] = id
      replies[n] = ACCEPTED
      if not by then -- the same for all that were claimed in one call
        by, ms = worker_of(hold), now - started_of(hold)
      end
      if any_tenant then
        make_room(tenant_of(hold))
      end
      if not texts[n] then
        replies[n] = GONE
        redis.call('HDEL', history, id)
        redis.call('HINCRBY', totals, 'lost', 1)
      else
        if is_first_attempt(hold) then
          firsts[#firsts + 1] = id
        else
          note(event, by, id, attempt_of(hold), ms)
        end
        if kind == 'retry' then
          retry(n, run.delay)
        elseif quick and not pasts[n] and is_plain(texts[n])
          and not (any_blocked and redis.call('EXISTS', kids .. id) == 1) then
          succeed(n)
          succeeded = succeeded + 1
        else
          conclude(n, kind, ending)
        end
      end
    end
  end
  note_all(event, by, firsts, 1, #firsts, 1, ms)
end

if #ended > 0 then
  redis.call('HDEL', running, unpack(ended))
  redis.call('ZREM', leases, unpack(ended))
  if any_progress then
    for _, id in ipairs(ended) do
      fall_silent(id)
    end
  end
  if #ended_ids == 0 then
    open_the_cap()
  end
end
if succeeded > 0 then
  ended_counts.succeeded = (ended_counts.succeeded or 0) + succeeded
end
publish_ends()
record_events()
return replies
