-- How tasks become final, and what that means for the tasks that depend on them.
local ended_ids, ended_counts = {}, {}

-- Forget all that a task has beside its record and its past. What a dead one may need again is kept: its payload, and
-- how its parents ended.
local function forget_extras(id, head, final_state)
  local flags = head.flags
  if string.find(flags, 'd', 1, true) then
    redis.call('ZREM', deadlines, id)
  end
  if string.find(flags, '[fsr]') then
    if final_state ~= 'dead' then
      renounce(id)
    end
    redis.call('HDEL', blocked, id)
  end
  if head.blob and final_state ~= 'dead' then
    for n = 1, head.chunks do
      redis.call('EXPIRE', chunks .. head.blob .. ':' .. n, result_ttl_s)
    end
  end
end

-- A task that has ended says nothing more; what it has said is kept as long as its result.
local function fall_silent(id)
  if redis.call('HDEL', progress, id) == 1 then
    redis.call('EXPIRE', said .. id, result_ttl_s)
  end
end

-- Whether any task waits for another one; asked once for each call.
local anyone_blocked
local function someone_is_blocked()
  if anyone_blocked == nil then
    anyone_blocked = redis.call('EXISTS', blocked) == 1
  end
  return anyone_blocked
end

-- Queue a task that has waited for its time or its parents; its past says where.
local function let_go(id, head, now)
  local attempts, place, replays, failures = past_of(id)
  if head.due and head.due > now and attempts == '0' then
    redis.call('ZADD', scheduled, digits(head.due), id)
    ring('')
    return
  end
  if attempts == '0' and replays == '0' and failures == '' then
    redis.call('HDEL', history, id)
  end
  line_up(id, head.lane, head.tenant, place or '0')
end

-- Count a task as ended, for everyone who waits for it.
local function announce(id, state)
  ended_ids[#ended_ids + 1] = id
  ended_counts[state] = (ended_counts[state] or 0) + 1
end

local finish

-- Tell the children of a task that it has ended. `outcome` is JSON. Adds to `doomed` those that end because of it.
local function tell_children(id, state, outcome, now, doomed)
  local children = redis.call('SMEMBERS', kids .. id)
  if #children == 0 then
    return
  end
  redis.call('DEL', kids .. id)
  for _, child in ipairs(children) do
    if redis.call('HEXISTS', blocked, child) == 1 then
      local head = head_of(child)
      if not head then
        redis.call('HDEL', blocked, child)
      elseif state ~= 'succeeded' and not string.find(head.flags, 'r', 1, true) then
        redis.call('HDEL', blocked, child)
        doomed[#doomed + 1] = { id = child, parent = id, state = state, skip = string.find(head.flags, 's', 1, true) }
      else
        inherit(child, id, outcome)
        if redis.call('HINCRBY', blocked, child, -1) <= 0 then
          redis.call('HDEL', blocked, child)
          let_go(child, head, now)
        end
      end
    end
  end
end

-- End a task that nobody holds any more, and those that end because of it. `text` is its record, `outcome` JSON.
finish = function(id, text, state, outcome, now)
  local doomed = {}
  local next_doomed = 1
  while true do
    local head = head_of_text(text)
    if state == 'dead' then
      redis.call('SET', records .. id, with_outcome(text, outcome))
      -- By the microsecond, and one more for each in this call: who died last is listed first.
      redis.call('ZADD', dead, string.format('%.3f', now + (microseconds + #ended_ids) / 1000), id)
    else
      redis.call('SET', records .. id, with_outcome(text, outcome), 'EX', result_ttl_s)
    end
    redis.call('HDEL', history, id)
    if head and head.flags ~= '' then
      forget_extras(id, head, state)
    end
    announce(id, state)
    if someone_is_blocked() then
      tell_children(id, state, outcome, now, doomed)
    end
    local child
    repeat
      child = doomed[next_doomed]
      next_doomed = next_doomed + 1
      text = child and redis.call('GET', records .. child.id)
    until not child or text
    if not child then
      return
    end
    id, state = child.id, child.skip and 'cancelled' or 'failed'
    local _, _, replays = past_of(id)
    outcome = '{"attempt":0,"at":' .. digits(now) .. ',"state":"' .. state .. '","replays":' .. replays
      .. ',"failures":[{"attempt":0,"at":' .. digits(now) .. ',"code":"PARENT_FAILED","message":"the task '
      .. child.parent .. ' that it depends on ended as ' .. child.state .. '"}]}'
    note(state, '', id, 0, -1)
  end
end

-- End a task before its time: cancelled or expired, wherever it is. `code` and `message` (JSON) say why. Returns
-- whether somebody was working on it.
local function cut_short(id, text, state, now, code, message, by)
  local hold = redis.call('HGET', running, id)
  local _, _, replays, failures = past_of(id)
  local attempts = past_of(id)
  local opening, head = '{"attempt":' .. attempts, head_of_text(text)
  if hold then
    redis.call('HDEL', running, id)
    redis.call('ZREM', leases, id)
    fall_silent(id)
    make_room(tenant_of(hold))
    opening = open_without_token(hold)
    redis.call('PUBLISH', revoked, id)
    note(state, by, id, attempt_of(hold), now - started_of(hold))
  else
    if redis.call('ZREM', scheduled, id) == 0 and redis.call('HDEL', blocked, id) == 0 then
      take_out(id, head.lane, head.tenant)
    end
    note(state, by, id, 0, -1)
  end
  local failure = (hold and open_without_token(hold) or '{"attempt":0') .. ',"at":' .. digits(now) .. ',"code":"' .. code
    .. '","message":' .. message .. '}'
  failures = failures == '' and failure or failures .. ',' .. failure
  finish(id, text, state, opening .. ',"at":' .. digits(now) .. ',"state":"' .. state .. '","replays":' .. replays
    .. ',"failures":[' .. failures .. ']}', now)
  return hold
end

-- At the end of a call: count what ended, and tell who waits for it.
local function publish_ends()
  if #ended_ids == 0 then
    return
  end
  for state, count in pairs(ended_counts) do
    redis.call('HINCRBY', totals, state == 'dead' and 'failed' or state, count)
  end
  redis.call('PUBLISH', done, table.concat(ended_ids, ' '))
  if redis.call('DEL', full) == 1 then
    redis.call('RPUSH', room, '1')
  end
  open_the_cap()
end
