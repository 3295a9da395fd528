-- Take the best ready tasks for a worker, each under a lease.
--
-- KEYS: records ready wake lanes scheduled leases running history dead totals done
-- ARGV: nonce repeated limit lease_ms horizon_ms worker
--   then the lanes that the worker serves
-- `nonce` becomes the token of every task taken. `repeated` is 1 if the call was sent before and its reply got lost.
-- `worker` is the instance's name as a JSON string. `limit` 0 takes nothing: it only moves what is due and rings.
--
-- Guarantee: strict order over all lanes of the worker, by priority, then by arrival. A task is in exactly one of
-- ready, scheduled and running. A repeated call returns what the first one took. Idle workers of a lane are woken as
-- long as it holds work.
--
-- Returns {ms until something is due or -1, records, attempts, ids whose record is gone}.

-- @include clock
-- @include lane
-- @include record
-- @include tidy

local TIDY_BOUND = 200
local FIRST_LANE = 7
limit = tonumber(limit)
local now = clock()
local next_scheduled, next_lease = tidy(now, TIDY_BOUND)

-- What the first try of a repeated call took: records and attempts, in their order.
local function taken_before()
  local found = {}
  local entries = redis.call('HGETALL', running)
  for i = 1, #entries, 2 do
    if token_of(entries[i + 1]) == nonce then
      local attempt, place = string.match(entries[i + 1], HOLD)
      found[#found + 1] = { id = entries[i], attempt = tonumber(attempt), place = tonumber(place) }
    end
  end
  table.sort(found, function(a, b) return a.place < b.place end)
  local texts, attempts = {}, {}
  for _, task in ipairs(found) do
    local text = redis.call('GET', records .. task.id)
    if text then
      texts[#texts + 1] = text
      attempts[#attempts + 1] = task.attempt
    end
  end
  return texts, attempts
end

-- Merge the heads of several lanes: the best `limit` ids and their scores. Counts in each head what was used of it.
local function merge(heads)
  local ids, scores = {}, {}
  for n = 1, limit do
    local best, best_score
    for h = 1, #heads do
      local head = heads[h]
      local score = tonumber(head.members[head.used * 2 + 2])
      if score and (not best or score < best_score) then
        best, best_score = head, score
      end
    end
    if not best then
      break
    end
    ids[n] = best.members[best.used * 2 + 1]
    scores[n] = best.members[best.used * 2 + 2]
    best.used = best.used + 1
  end
  return ids, scores
end

-- Take the best `limit` ids out of the lanes, and ring for what is left. Returns ids and scores.
local function pop()
  local heads = {}
  for i = FIRST_LANE, #ARGV do
    local members = redis.call('ZRANGE', ready .. ARGV[i], 0, limit - 1, 'WITHSCORES')
    if #members > 0 then
      heads[#heads + 1] = { lane = ARGV[i], members = members, used = 0 }
    end
  end
  local ids, scores = {}, {}
  if #heads == 1 then
    local members = heads[1].members
    heads[1].used = #members / 2
    for n = 1, #members / 2 do
      ids[n] = members[n * 2 - 1]
      scores[n] = members[n * 2]
    end
  else
    ids, scores = merge(heads)
  end
  for _, head in ipairs(heads) do
    local lane = ready .. head.lane
    if head.used > 0 then
      redis.call('ZREMRANGEBYRANK', lane, 0, head.used - 1)
    end
    local seen = #head.members / 2
    if head.used < seen or (seen == limit and redis.call('EXISTS', lane) == 1) then
      ring(head.lane)
    end
  end
  return ids, scores
end

-- Put leases on ids. Returns records, attempts, and the ids whose record is gone.
local function lease(ids, scores)
  local keys = {}
  for n = 1, #ids do
    keys[n] = records .. ids[n]
  end
  local found = redis.call('MGET', unpack(keys))
  local pasts = redis.call('EXISTS', history) == 1 and redis.call('HMGET', history, unpack(ids)) or {}
  local expiry = digits(now + lease_ms)
  local openings = setmetatable({}, {
    __index = function(known, attempt)
      local opening = '{"token":"' .. nonce .. '","started":' .. digits(now) .. ',"attempt":' .. attempt
        .. ',"worker":' .. worker .. ',"place":'
      known[attempt] = opening
      return opening
    end,
  })
  local texts, attempts, gone, expiries, holds = {}, {}, {}, {}, {}
  local count = 0
  for n = 1, #ids do
    if found[n] then
      local attempt = 1
      if pasts[n] then
        attempt = 1 + string.match(pasts[n], PAST)
      end
      count = count + 1
      texts[count] = found[n]
      attempts[count] = attempt
      expiries[count * 2 - 1] = expiry
      expiries[count * 2] = ids[n]
      holds[count * 2 - 1] = ids[n]
      holds[count * 2] = openings[attempt] .. scores[n] .. '}'
    else
      gone[#gone + 1] = ids[n]
      redis.call('HDEL', history, ids[n])
    end
  end
  if count > 0 then
    redis.call('ZADD', leases, unpack(expiries))
    redis.call('HSET', running, unpack(holds))
  end
  return texts, attempts, gone
end

if repeated == '1' then
  local texts, attempts = taken_before()
  if #texts > 0 then
    return { -1, texts, attempts, {} }
  end
end
if limit == 0 then
  for i = FIRST_LANE, #ARGV do
    if redis.call('EXISTS', ready .. ARGV[i]) == 1 then
      ring(ARGV[i])
    end
  end
  return { -1, {}, {}, {} }
end
local ids, scores = pop()
if #ids == 0 then
  local next_due = math.min(next_scheduled or math.huge, next_lease or math.huge)
  return { next_due < math.huge and math.max(0, next_due - now) or -1, {}, {}, {} }
end
-- Somebody idle must know when the next task is due, and that may have been us.
if next_scheduled and next_scheduled - now < tonumber(horizon_ms) then
  ring('')
end
return { -1, lease(ids, scores) }
