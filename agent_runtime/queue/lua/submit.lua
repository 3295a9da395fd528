-- Queue tasks: several submissions in one call, each of them all or none, one after the other.
--
-- KEYS: records ready wake lanes lines lined parked positions tenants scheduled history deadlines blocked kids parents heirs chunks keyed schedules dead totals events gates capped full room done sequence leases running progress said revoked
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
-- @include heirs
-- @include ending
-- @include gates

local QUEUED, DUPLICATE, UNKNOWN_PARENT, CLOSED, FULL, FIRED = 0, 1, 2, 3, 4, 5
-- Lua's stack holds about 8,000 values; longer argument lists are cut.
local CHUNK = 1000
local FIRST = 9
count = tonumber(count)
max_depth = tonumber(max_depth)
local now = clock()

local ids, keys, texts = {}, {}, {}
local submissions, any_extra = {}, false
local at, total = FIRST, 0
for s = 1, count do
  local submission = { nonce = ARGV[at], first = total + 1, last = total + ARGV[at + 1] }
  at = at + 2
  while total < submission.last do
    local run = { lane = ARGV[at], priority = tonumber(ARGV[at + 1]), first = total + 1, nonce = submission.nonce }
    if ARGV[at + 2] ~= '' then
      run.extra = cjson.decode(ARGV[at + 2])
      any_extra = true
    end
    local last = total + ARGV[at + 3]
    at = at + 4
    while total < last do
      total = total + 1
      ids[total] = ARGV[at]
      keys[total] = records .. ARGV[at]
      texts[total] = ARGV[at + 1]
      at = at + 2
    end
    run.last = total
    submission[#submission + 1] = run
  end
  submissions[s] = submission
end

-- Which ids are taken, and by whom: asked for all at once, since mostly none is.
local taken, any_taken = {}, false
local any_gate = 0
for start = 1, total, CHUNK do
  local last = math.min(start + CHUNK - 1, total)
  if redis.call('EXISTS', gates, unpack(keys, start, last)) > any_gate then
    any_taken, any_gate = true, redis.call('EXISTS', gates)
    for i = start, last do
      local text = redis.call('GETRANGE', keys[i], 0, 127)
      if text ~= '' then
        taken[ids[i]] = string.match(text, '"nonce":"(%x+)"')
      end
    end
  end
end

local submissions_are_shut = any_gate == 1 and is_shut('submissions')
local waiting
if max_depth > 0 then
  local figures = redis.call('HMGET', totals, 'submitted', 'replayed', 'succeeded', 'failed', 'cancelled', 'expired', 'lost')
  waiting = (figures[1] or 0) + (figures[2] or 0) - redis.call('ZCARD', leases)
  for n = 3, #figures do
    waiting = waiting - (figures[n] or 0)
  end
end

-- What the submissions accepted so far in this call have brought.
local accepted, keyed_now, merged_into = {}, {}, {}

-- The earlier task that a task with this key is merged with, if any. It may have the same id: then it is an earlier one
-- unless this very submission has brought it.
local function earlier(key, own_id, nonce)
  local id = keyed_now[key] or redis.call('GET', keyed .. key)
  if not id or id == own_id and (taken[id] or accepted[id]) == nonce then
    return nil
  end
  if accepted[id] or redis.call('EXISTS', records .. id) == 1 then
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

local function has_room(size, submission)
  if not waiting or size == 0 or waiting + size <= max_depth then
    return true
  end
  if when_full == 'Shed' then
    local floor = 9
    for _, run in ipairs(submission) do
      floor = math.min(floor, run.priority)
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

local function has_fired()
  return schedule ~= '' and tonumber(redis.call('HGET', schedules, schedule) or 0) >= tonumber(due)
end

-- Decide on one submission, in the order of what it depends on. Returns the verdict; if that is QUEUED also the runs
-- to be written, and how many tasks they have.
local function decide(submission)
  local nonce, first = submission.nonce, submission.first
  local verdict, fresh, size, own, own_keys, merged_here = { QUEUED }, {}, 0, {}, {}, {}
  local look = any_taken or count > 1
  local repeated = false
  for _, run in ipairs(submission) do
    local key = run.extra and run.extra.key
    local into = key and (earlier(key, ids[run.first], nonce) or own_keys[key])
    if into then
      verdict[#verdict + 1] = run.first - first
      verdict[#verdict + 1] = into
      merged_here[ids[run.first]] = into
    else
      for i = run.first, look and run.last or run.first - 1 do
        local owner = taken[ids[i]] or accepted[ids[i]]
        if owner and owner ~= nonce then
          if has_fired() then
            return { FIRED }
          end
          return { DUPLICATE, i - first }
        end
        repeated = repeated or owner == nonce
      end
      if any_extra then
        for i = run.first, run.last do
          own[ids[i]] = true
        end
      end
      if key then
        own_keys[key] = ids[run.first]
      end
      fresh[#fresh + 1] = run
      size = size + run.last - run.first + 1
    end
  end
  if repeated then
    return verdict, {}, 0
  end
  if has_fired() then
    return { FIRED }
  end
  if submissions_are_shut then
    return { CLOSED }
  end
  for _, run in ipairs(fresh) do
    for _, parent in ipairs(run.extra and run.extra.parents or {}) do
      local known = merged_here[parent] or parent
      if not own[known] and not accepted[known] and redis.call('EXISTS', records .. known) == 0 then
        return { UNKNOWN_PARENT, run.first - first, parent }
      end
    end
  end
  if not has_room(size, submission) then
    return { FULL, waiting }
  end
  for key, id in pairs(own_keys) do
    keyed_now[key] = id
  end
  for id, into in pairs(merged_here) do
    merged_into[id] = into
    note('merged', '', into)
  end
  return verdict, fresh, size
end

-- The same for a submission of plain tasks, where the only thing that can be wrong is an id.
local quick = not any_extra and not submissions_are_shut and not waiting and schedule == ''
local accept = { QUEUED }
local function decide_quickly(submission)
  local nonce = submission.nonce
  if any_taken or count > 1 then
    for i = submission.first, submission.last do
      local owner = taken[ids[i]] or accepted[ids[i]]
      if owner then
        return owner == nonce and accept or { DUPLICATE, i - submission.first }
      end
    end
  end
  return accept, submission, submission.last - submission.first + 1
end

local verdicts, fresh, fresh_size = {}, {}, 0
for s, submission in ipairs(submissions) do
  local verdict, runs, size = (quick and decide_quickly or decide)(submission)
  verdicts[s] = verdict
  if runs and size > 0 then
    for _, run in ipairs(runs) do
      fresh[#fresh + 1] = run
      if count > 1 then
        for i = run.first, run.last do
          accepted[ids[i]] = run.nonce
        end
      end
    end
    fresh_size = fresh_size + size
    if waiting then
      waiting = waiting + size
    end
    if schedule ~= '' then
      redis.call('HSET', schedules, schedule, due)
    end
  end
end

-- Who depends on a merged task of its batch depends on the earlier one: in the record, too.
for _, run in ipairs(fresh) do
  if run.extra and run.extra.parents and next(merged_into) then
    local before = '"parents":["' .. table.concat(run.extra.parents, '","') .. '"]'
    local parents_now, seen = {}, {}
    for _, parent in ipairs(run.extra.parents) do
      parent = merged_into[parent] or parent
      if not seen[parent] then
        seen[parent] = true
        parents_now[#parents_now + 1] = parent
      end
    end
    run.extra.parents = parents_now
    local from, to = string.find(texts[run.first], before, 1, true)
    texts[run.first] = string.sub(texts[run.first], 1, from - 1) .. '"parents":["' .. table.concat(parents_now, '","')
      .. '"]' .. string.sub(texts[run.first], to + 1)
  end
end

-- All records first, so that tasks of a batch find each other.
local opening = '{"task":{"at":' .. digits(now) .. ',"nonce":"'
local writes, size = {}, 0
for n, run in ipairs(fresh) do
  local opening_of_run = opening .. run.nonce .. '",'
  for i = run.first, run.last do
    writes[size + 1] = keys[i]
    writes[size + 2] = opening_of_run .. texts[i]
    size = size + 2
    if size >= 2 * CHUNK or n == #fresh and i == run.last then
      redis.call('MSET', unpack(writes, 1, size))
      size = 0
    end
  end
end

-- What a task is beside its record and its place. Returns the parents it has to wait for, and whether one of them has
-- ended so that it must end, too: {parent, state}.
local function attach(id, extra)
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
    local outcome = outcome_of(redis.call('GET', records .. parent) or '')
    if outcome then
      local state = state_of(outcome)
      inherit(id, parent, outcome)
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

local function end_by_parent(id, policy, fatal)
  local state = policy == 's' and 'cancelled' or 'failed'
  note(state, '', id, 0, -1)
  finish(id, redis.call('GET', records .. id), state, '{"attempt":0,"at":' .. digits(now) .. ',"state":"' .. state
    .. '","replays":0,"failures":[{"attempt":0,"at":' .. digits(now) .. ',"code":"PARENT_FAILED","message":"the task '
    .. fatal.parent .. ' that it depends on had ended as ' .. fatal.state .. '"}]}', now)
end

if fresh_size > 0 then
  local place = redis.call('INCRBY', sequence, fresh_size) - fresh_size
  redis.call('HINCRBY', totals, 'submitted', fresh_size)
  local members, sizes, complicated = {}, {}, {}
  for _, run in ipairs(fresh) do
    note_all('submitted', '', ids, run.first, run.last)
    local base = (9 - run.priority) * PRIORITY_SPAN + place - run.first + 1
    place = place + run.last - run.first + 1
    if run.extra then
      run.score, run.id = digits(base + run.first), ids[run.first]
      complicated[#complicated + 1] = run
    else
      local list, last = members[run.lane], sizes[run.lane]
      if not list then
        list, last = {}, 0
        members[run.lane] = list
      end
      for i = run.first, run.last do
        list[last + 1] = base + i
        list[last + 2] = ids[i]
        last = last + 2
      end
      sizes[run.lane] = last
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
    local starts = task.extra.due or task.extra.delay and now + task.extra.delay
    task.open_parents, task.fatal = attach(task.id, task.extra)
    task.starts = starts and starts > now and starts
    if not task.fatal and (task.open_parents > 0 or task.starts) then
      -- Where it goes once it is let go, which may be as soon as a parent ends below.
      redis.call('HSET', history, task.id, past_text('0', task.score, '0', ''))
    end
    if task.open_parents > 0 and not task.fatal then
      redis.call('HSET', blocked, task.id, task.open_parents)
      anyone_blocked = true
    end
  end
  for _, task in ipairs(complicated) do
    local id, extra = task.id, task.extra
    if task.fatal then
      end_by_parent(id, extra.policy, task.fatal)
    elseif task.open_parents == 0 then -- else its last parent lets it go, or ends it
      if task.starts then
        redis.call('ZADD', scheduled, digits(task.starts), id)
        ring('')
      else
        line_up(id, task.lane, extra.tenant or '', task.score)
      end
    end
  end
end
publish_ends()
record_events()
return verdicts
