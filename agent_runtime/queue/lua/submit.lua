-- Queue tasks: several submissions in one call, each of them all or none, one after the other.
--
-- KEYS: records ready wake lanes lines lined parked positions tenants scheduled history deadlines blocked kids parents chunks keyed schedules dead totals events gates capped full room done sequence leases running progress revoked
-- ARGV: keep result_ttl_s max_depth when_full dedup_ms schedule due count
--   then for each submission: nonce, number of its tasks, and runs of neighbours that go to the same place: lane,
--   priority (0 to 9), extra, length, and for each task of the run: id, its record from `"flags":` on
-- `max_depth` 0 is no limit. `schedule` and `due` (ms) are set if this is the only submission and made by a schedule.
-- `extra` is '' or a JSON object for a run of one task: tenant, due (ms), delay (ms), deadline (ms), ttl (ms), key,
-- parents, policy (f, s, r), blob, chunks, each only if there is one.
--
-- Guarantee: each submission is atomic: all that can refuse it is checked before anything is written. One that is sent
-- again with the same nonce, because the reply got lost, is applied once. Inside a priority tasks keep the order of
-- their batch, and batches the order in which they arrive.
--
-- Returns for each submission
--   {0} QUEUED, or {0, n, id, n, id, …} if task n (from 0) was merged with the earlier task id;
--   {1, n} DUPLICATE: the id of task n is taken;  {2, n, parent} UNKNOWN_PARENT;  {3} CLOSED;  {4, waiting} FULL;
--   {5} FIRED: the schedule has fired for this due time or a later one. All but the first have changed nothing.

-- @include clock
-- @include lane
-- @include record
-- @include events
-- @include ending

local QUEUED, DUPLICATE, UNKNOWN_PARENT, CLOSED, FULL, FIRED = 0, 1, 2, 3, 4, 5
-- Lua's stack holds about 8,000 values; longer argument lists are cut.
local CHUNK = 1000
local FIRST = 9
count = tonumber(count)
max_depth = tonumber(max_depth)
local now = clock()

local ids, keys, texts, places, priorities, extras, nonces = {}, {}, {}, {}, {}, {}, {}
local submissions = {}
local at, total = FIRST, 0
for s = 1, count do
  local nonce, size = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  submissions[s] = { nonce = nonce, first = total + 1, last = total + size }
  local stop = total + size
  while total < stop do
    local lane, priority, extra, length = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], tonumber(ARGV[at + 3])
    at = at + 4
    for _ = 1, length do
      total = total + 1
      ids[total] = ARGV[at]
      keys[total] = records .. ARGV[at]
      texts[total] = ARGV[at + 1]
      places[total] = lane
      priorities[total] = priority
      nonces[total] = nonce
      if extra ~= '' then
        extras[total] = cjson.decode(extra)
      end
      at = at + 2
    end
  end
end

-- Which ids are taken, and by whom: asked for all at once, since mostly none is.
local taken = {}
for start = 1, total, CHUNK do
  local last = math.min(start + CHUNK - 1, total)
  if redis.call('EXISTS', unpack(keys, start, last)) > 0 then
    for i = start, last do
      local text = redis.call('GETRANGE', keys[i], 0, 127)
      if text ~= '' then
        taken[ids[i]] = string.match(text, '"nonce":"(%x+)"')
      end
    end
  end
end

local submissions_are_shut = false
if redis.call('EXISTS', gates) == 1 then
  for _, gate in ipairs(redis.call('HKEYS', gates)) do
    submissions_are_shut = submissions_are_shut or string.sub(gate, 1, 12) == 'submissions '
  end
end
local waiting
if max_depth > 0 then
  waiting = tonumber(redis.call('HGET', totals, 'open') or 0) - redis.call('ZCARD', leases)
end

-- What the submissions accepted so far in this call have brought.
local accepted, keyed_now, merged_into = {}, {}, {}

-- The earlier task that a task is merged with, if any.
local function earlier(i)
  local key = extras[i] and extras[i].key
  if not key then
    return nil
  end
  local id = keyed_now[key] or redis.call('GET', keyed .. key)
  if id and id ~= ids[i] and (accepted[id] or redis.call('EXISTS', records .. id) == 1) then
    return id
  end
end

-- Queued tasks of a priority lower than `floor`, `wanted` of them, to be given up: the lowest first, and in it the
-- newest. Nil if there are not so many.
local function victims(wanted, floor)
  local names = redis.call('SMEMBERS', lanes)
  names[#names + 1] = ''
  local found = {}
  local from = digits((9 - floor + 1) * PRIORITY_SPAN)
  local function gather(line)
    local members = redis.call('ZREVRANGEBYSCORE', line, '+inf', from, 'WITHSCORES', 'LIMIT', 0, wanted)
    for n = 1, #members, 2 do
      if string.sub(members[n], 1, 1) ~= '@' then
        found[#found + 1] = { id = members[n], score = tonumber(members[n + 1]) }
      end
    end
  end
  for _, lane in ipairs(names) do
    gather(ready .. lane)
  end
  for _, line in ipairs(redis.call('SMEMBERS', lined)) do
    gather(lines .. line)
  end
  if #found < wanted then
    return nil
  end
  table.sort(found, function(a, b) return a.score > b.score end)
  local chosen = {}
  for n = 1, wanted do
    chosen[n] = found[n].id
  end
  return chosen
end

local function has_room(size, first, last)
  if not waiting or waiting + size <= max_depth then
    return true
  end
  if when_full == 'Shed' then
    local floor = 9
    for i = first, last do
      floor = math.min(floor, priorities[i])
    end
    local given_up = victims(waiting + size - max_depth, floor)
    if given_up then
      for _, id in ipairs(given_up) do
        cut_short(id, redis.call('GET', records .. id), 'cancelled', now, 'SHED',
          '"given up for tasks of higher priority: the queue was full"', 'shed')
      end
      waiting = waiting - #given_up
      return true
    end
  elseif when_full == 'Block' then
    redis.call('SET', full, '1')
  end
  return false
end

-- Decide on one submission, in the order of what it depends on. Returns the verdict; if that is QUEUED also the tasks
-- to be written.
local function decide(submission)
  local nonce, first, last = submission.nonce, submission.first, submission.last
  local verdict, fresh, own, merged_here = { QUEUED }, {}, {}, {}
  local repeated = false
  for i = first, last do
    local into = earlier(i)
    local key = extras[i] and extras[i].key
    if not into and key and own[key] then
      into = own[key]
    end
    if into then
      verdict[#verdict + 1] = i - first
      verdict[#verdict + 1] = into
      merged_here[ids[i]] = into
    else
      local owner = taken[ids[i]] or accepted[ids[i]]
      if owner and owner ~= nonce then
        return { DUPLICATE, i - first }
      end
      repeated = repeated or owner == nonce
      if key then
        own[key] = ids[i]
      end
      fresh[#fresh + 1] = i
      own[ids[i]] = ids[i]
    end
  end
  if repeated then
    return verdict, {}
  end
  if submissions_are_shut then
    return { CLOSED }
  end
  if schedule ~= '' and tonumber(redis.call('HGET', schedules, schedule) or 0) >= tonumber(due) then
    return { FIRED }
  end
  for _, i in ipairs(fresh) do
    for _, parent in ipairs(extras[i] and extras[i].parents or {}) do
      local known = merged_here[parent] or parent
      if not own[known] and not accepted[known] and redis.call('EXISTS', records .. known) == 0 then
        return { UNKNOWN_PARENT, i - first, parent }
      end
    end
  end
  if not has_room(#fresh, first, last) then
    return { FULL, waiting }
  end
  for key, id in pairs(own) do
    if key ~= id then
      keyed_now[key] = id
    end
  end
  for id, into in pairs(merged_here) do
    merged_into[id] = into
    note('merged', '', into)
  end
  return verdict, fresh
end

local verdicts, fresh = {}, {}
for s, submission in ipairs(submissions) do
  local verdict, tasks = decide(submission)
  verdicts[s] = verdict
  if tasks and #tasks > 0 then
    for _, i in ipairs(tasks) do
      fresh[#fresh + 1] = i
      accepted[ids[i]] = submission.nonce
    end
    if waiting then
      waiting = waiting + #tasks
    end
    if schedule ~= '' then
      redis.call('HSET', schedules, schedule, due)
    end
  end
end

-- All records first, so that tasks of a batch find each other.
local opening = '{"task":{"at":' .. digits(now) .. ',"nonce":"'
for start = 1, #fresh, CHUNK do
  local writes, size = {}, 0
  for n = start, math.min(start + CHUNK - 1, #fresh) do
    local i = fresh[n]
    writes[size + 1] = keys[i]
    writes[size + 2] = opening .. nonces[i] .. '",' .. texts[i]
    size = size + 2
  end
  redis.call('MSET', unpack(writes))
end

-- What a task is beside its record and its place. Returns the parents it has to wait for, and whether one of them has
-- ended so that it must end, too: {parent, state}.
local function attach(i)
  local id, extra = ids[i], extras[i]
  if extra.key then
    redis.call('SET', keyed .. extra.key, id, 'PX', dedup_ms)
  end
  local deadline = extra.deadline or extra.ttl and now + extra.ttl
  if deadline then
    redis.call('ZADD', deadlines, digits(deadline), id)
  end
  if extra.blob then
    for n = 1, extra.chunks do
      redis.call('PERSIST', chunks .. extra.blob .. ':' .. n)
    end
  end
  local open_parents, fatal = 0, nil
  for _, parent in ipairs(extra.parents or {}) do
    parent = merged_into[parent] or parent
    local outcome = outcome_of(redis.call('GET', records .. parent) or '')
    if outcome then
      local state = state_of(outcome)
      redis.call('HSET', parents .. id, parent, outcome)
      if state ~= 'succeeded' and extra.policy ~= 'r' then
        fatal = fatal or { parent = parent, state = state }
      end
    else
      open_parents = open_parents + 1
      redis.call('SADD', kids .. parent, id)
    end
  end
  return open_parents, fatal
end

local function end_by_parent(i, fatal)
  local id = ids[i]
  local state = extras[i].policy == 's' and 'cancelled' or 'failed'
  note(state, '', id, 0, -1)
  finish(id, redis.call('GET', keys[i]), state, '{"attempt":0,"at":' .. digits(now) .. ',"state":"' .. state
    .. '","replays":0,"failures":[{"attempt":0,"at":' .. digits(now) .. ',"code":"PARENT_FAILED","message":"the task '
    .. fatal.parent .. ' that it depends on had ended as ' .. fatal.state .. '"}]}', now)
end

if #fresh > 0 then
  local before = redis.call('INCRBY', sequence, #fresh) - #fresh
  redis.call('HINCRBY', totals, 'open', #fresh)
  redis.call('HINCRBY', totals, 'submitted', #fresh)
  local members = {}
  local complicated = {}
  for n, i in ipairs(fresh) do
    local score = (9 - priorities[i]) * PRIORITY_SPAN + before + n
    note('submitted', '', ids[i])
    if extras[i] then
      complicated[#complicated + 1] = { i = i, score = score }
    else
      local lane = places[i]
      local list = members[lane]
      if not list then
        list = {}
        members[lane] = list
      end
      list[#list + 1] = digits(score)
      list[#list + 1] = ids[i]
    end
  end
  for lane, list in pairs(members) do
    for start = 1, #list, 2 * CHUNK do
      redis.call('ZADD', ready .. lane, unpack(list, start, math.min(start + 2 * CHUNK - 1, #list)))
    end
    if lane ~= '' then
      redis.call('SADD', lanes, lane)
    end
    ring(lane)
  end
  -- Children may stand before their parents in a batch: link all of them before one may end or wait.
  for _, task in ipairs(complicated) do
    task.open_parents, task.fatal = attach(task.i)
    if task.open_parents > 0 and not task.fatal then
      redis.call('HSET', blocked, ids[task.i], task.open_parents)
      anyone_blocked = true
    end
  end
  for _, task in ipairs(complicated) do
    local i, id, extra = task.i, ids[task.i], extras[task.i]
    local starts = extra.due or extra.delay and now + extra.delay
    if task.fatal then
      end_by_parent(i, task.fatal)
    elseif outcome_of(redis.call('GET', keys[i])) == nil then -- else it has ended with a parent just now
      if task.open_parents > 0 or starts and starts > now then
        redis.call('HSET', history, id, past_text('0', digits(task.score), '0', ''))
      end
      if task.open_parents == 0 then
        if starts and starts > now then
          redis.call('ZADD', scheduled, digits(starts), id)
          ring('')
        else
          line_up(id, places[i], extra.tenant or '', digits(task.score))
        end
      end
    end
  end
end
publish_ends()
record_events()
return verdicts
