-- Take the best ready tasks for a worker, each under a lease.
--
-- KEYS: records ready wake lanes lines lined parked positions tenants rates scheduled leases running history deadlines blocked kids parents heirs chunks progress said dead totals events gates cordons capped full room done revoked sequence
-- ARGV: keep result_ttl_s nonce repeated limit lease_ms horizon_ms worker limits
--   then the lanes that the worker serves
-- `nonce` becomes the token of every task taken. `repeated` is 1 if the call was sent before and its reply got lost.
-- `worker` is the instance's name as a JSON string. `limits` is '' or six numbers, see include/limits. `limit` 0 takes
-- nothing: it only moves what is due and rings.
--
-- Guarantee: strict order over all lanes of the worker, by priority, then by arrival; tenants take turns inside a
-- priority. Never more than the limits allow. A task is in exactly one of ready, scheduled, blocked and running. A
-- repeated call returns what the first one took. Idle workers of a lane are woken as long as it holds work. A worker
-- that is cordoned takes nothing, and what it was woken for wakes others.
--
-- Returns {ms until something is due or -1, records, attempts, ids whose record is gone}; -2 in place of the ms says
-- CORDONED.

-- @include clock
-- @include lane
-- @include record
-- @include events
-- @include heirs
-- @include ending
-- @include limits
-- @include gates
-- @include tidy

local CORDONED = -2
local TIDY_BOUND = 200
local FIRST_LANE = 10
local MARKER = 64
limit = tonumber(limit)

-- What an idle worker finds, in one command: no timer runs, no gate is shut, nobody is cordoned, no lane of it holds
-- anything.
local looked_at = { deadlines, scheduled, leases, parked, gates, cordons }
for i = FIRST_LANE, #ARGV do
  looked_at[#looked_at + 1] = ready .. ARGV[i]
end
if redis.call('EXISTS', unpack(looked_at)) == 0 then
  return { -1, {}, {}, {} }
end

local now = clock()
local next_due = tidy(now, TIDY_BOUND)
local queue_limit, tenant_limit
if limits ~= '' then
  queue_limit, tenant_limit = limits_of(limits)
end

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

local function is_cordoned()
  return redis.call('HEXISTS', cordons, cjson.decode('[' .. worker .. ']')[1]) == 1
end

local function ring_what_is_left()
  for i = FIRST_LANE, #ARGV do
    if redis.call('EXISTS', ready .. ARGV[i]) == 1 then
      ring(ARGV[i])
    end
  end
end

-- The first `bound` members of each lane, with scores; and whether tenants are among them.
local function look(bound)
  local heads, turns = {}, false
  for i = FIRST_LANE, #ARGV do
    local members = redis.call('ZRANGE', ready .. ARGV[i], 0, bound - 1, 'WITHSCORES')
    if #members > 0 then
      heads[#heads + 1] = { lane = ARGV[i], members = members, used = 0 }
      for n = 1, #members, 2 do
        if string.byte(members[n]) == MARKER then
          turns = true
          break
        end
      end
    end
  end
  return heads, turns
end

-- Merge the heads of several lanes: the best `bound` ids and their scores. Counts in each head what was used of it.
local function merge(heads, bound)
  local ids, scores = {}, {}
  for n = 1, bound do
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

-- Take the best `bound` ids out of the lanes, and ring for what is left. Returns ids and scores.
local function pop(heads, bound)
  local ids, scores = {}, {}
  if #heads == 1 then
    local members = heads[1].members
    heads[1].used = #members / 2
    for n = 1, #members / 2 do
      ids[n] = members[n * 2 - 1]
      scores[n] = members[n * 2]
    end
  else
    ids, scores = merge(heads, bound)
  end
  for _, head in ipairs(heads) do
    local lane = ready .. head.lane
    if head.used > 0 then
      redis.call('ZREMRANGEBYRANK', lane, 0, head.used - 1)
    end
    local seen = #head.members / 2
    if head.used < seen or (seen == bound and redis.call('EXISTS', lane) == 1) then
      ring(head.lane)
    end
  end
  return ids, scores
end

-- Take the next task of the tenant that stands first in a lane. Returns id and score; nothing if the tenant is at a
-- limit: then it does not stand in the lane any more until it may go on.
local function take_turn(lane, tenant, marker_score)
  local line = line_of(tenant, lane)
  if tenant_limit then
    local count = tonumber(redis.call('HGET', tenants, tenant) or 0)
    local allowed, again = may_start(tenant_limit, tenant, count, 1, now)
    if allowed == 0 then
      redis.call('ZREM', ready .. lane, '@' .. tenant)
      redis.call('HSET', positions, line, marker_score)
      redis.call('ZADD', parked, again == math.huge and '+inf' or digits(again), line)
      return nil
    end
    pay(tenant_limit, tenant, 1, now)
  end
  local first = redis.call('ZPOPMIN', lines .. line)
  local following = tonumber(redis.call('ZRANGE', lines .. line, 0, 0, 'WITHSCORES')[2])
  if following then
    -- To the end of its priority's line: where a task would stand that was submitted now.
    redis.call('ZADD', ready .. lane, digits(band(following) + redis.call('INCR', sequence)), '@' .. tenant)
  else
    redis.call('ZREM', ready .. lane, '@' .. tenant)
    redis.call('SREM', lined, line)
  end
  redis.call('HINCRBY', tenants, tenant, 1)
  return first[1], first[2]
end

-- As `pop`, where tenants take turns. Also returns the tenant of each id ('' for none).
local function pop_in_turns(bound)
  local ids, scores, owners, firsts = {}, {}, {}, {}
  local function first_of(i)
    firsts[i] = redis.call('ZRANGE', ready .. ARGV[i], 0, 0, 'WITHSCORES')
  end
  for i = FIRST_LANE, #ARGV do
    first_of(i)
  end
  while #ids < bound do
    local best, best_score
    for i = FIRST_LANE, #ARGV do
      local score = tonumber(firsts[i][2])
      if score and (not best or score < best_score) then
        best, best_score = i, score
      end
    end
    if not best then
      break
    end
    local lane, member = ARGV[best], firsts[best][1]
    local id, score, tenant = member, firsts[best][2], ''
    if string.byte(member) == MARKER then
      tenant = string.sub(member, 2)
      id, score = take_turn(lane, tenant, score)
    else
      redis.call('ZREM', ready .. lane, member)
    end
    if id then
      local n = #ids + 1
      ids[n], scores[n], owners[n] = id, score, tenant
    end
    first_of(best)
  end
  ring_what_is_left()
  return ids, scores, owners
end

-- Put leases on ids. Returns records, attempts, and the ids whose record is gone.
local function lease(ids, scores, owners)
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
        .. ',"worker":' .. worker
      known[attempt] = opening
      return opening
    end,
  })
  local by = string.sub(worker, 2, -2)
  local texts, attempts, gone, expiries, holds, firsts = {}, {}, {}, {}, {}, {}
  local count = 0
  for n = 1, #ids do
    local owner = owners and owners[n] or ''
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
      holds[count * 2] = openings[attempt] .. (owner == '' and ',"place":' or ',"tenant":"' .. owner .. '","place":')
        .. scores[n] .. '}'
      if attempt == 1 then
        firsts[#firsts + 1] = ids[n]
      else
        note('started', by, ids[n], attempt)
      end
    else
      gone[#gone + 1] = ids[n]
      redis.call('HDEL', history, ids[n])
      if owner ~= '' then
        make_room(owner)
      end
    end
  end
  note_all('started', by, firsts, 1, #firsts, 1)
  if count > 0 then
    redis.call('ZADD', leases, unpack(expiries))
    redis.call('HSET', running, unpack(holds))
  end
  if #gone > 0 then
    redis.call('HINCRBY', totals, 'lost', #gone)
  end
  if redis.call('DEL', full) == 1 then
    redis.call('RPUSH', room, '1')
  end
  return texts, attempts, gone
end

-- How many of `wanted` the queue's own limits allow; notes when to ask again if that is fewer.
local function within_limits(wanted)
  if not queue_limit then
    return wanted
  end
  local count = queue_limit.running > 0 and redis.call('ZCARD', leases) or 0
  local allowed, again = may_start(queue_limit, '', count, wanted, now)
  if again == math.huge then
    redis.call('SET', capped, '1')
  elseif again and (not next_due or again < next_due) then
    next_due = again
  end
  return allowed
end

-- Somebody idle must know when the next thing is due, and that may have been us.
local function pass_on_what_is_due()
  if next_due and next_due - now < tonumber(horizon_ms) then
    ring('')
  end
end

local function nothing()
  return { next_due and math.max(0, next_due - now) or -1, {}, {}, {} }
end

local function answer()
  if repeated == '1' then
    local texts, attempts = taken_before()
    if #texts > 0 then
      return { -1, texts, attempts, {} }
    end
  end
  if limit == 0 then
    ring_what_is_left()
    return { -1, {}, {}, {} }
  end
  if redis.call('EXISTS', gates, cordons) > 0 then
    if is_cordoned() then
      ring_what_is_left()
      pass_on_what_is_due()
      return { CORDONED, {}, {}, {} }
    end
    if is_shut('claims') then
      return nothing()
    end
  end
  local bound = within_limits(limit)
  if bound == 0 then
    return nothing()
  end
  local heads, turns = look(bound)
  local ids, scores, owners
  if turns then
    ids, scores, owners = pop_in_turns(bound)
    -- Tenants that were parked just now may have to wait for their rate.
    local again = tonumber(redis.call('ZRANGE', parked, 0, 0, 'WITHSCORES')[2])
    if again and again < math.huge and (not next_due or again < next_due) then
      next_due = again
    end
  else
    ids, scores = pop(heads, bound)
  end
  if #ids == 0 then
    return nothing()
  end
  if queue_limit then
    pay(queue_limit, '', #ids, now)
  end
  pass_on_what_is_due()
  return { -1, lease(ids, scores, owners) }
end

local reply = answer()
publish_ends()
record_events()
return reply
