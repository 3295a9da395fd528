-- The place of a task whose own is not known any more. That takes a server that evicts keys: the task goes first,
-- rather than being lost.
local FRONT = '0'

-- What of a timer (scheduled, leases, deadlines) is due, at most `bound`; and when the first one left is due, or nil.
local function due(timer, now, bound)
  local first = tonumber(redis.call('ZRANGE', timer, 0, 0, 'WITHSCORES')[2])
  if not first or first > now then
    return {}, first
  end
  local ids = redis.call('ZRANGEBYSCORE', timer, '-inf', digits(now), 'LIMIT', 0, bound)
  redis.call('ZREM', timer, unpack(ids))
  return ids, tonumber(redis.call('ZRANGE', timer, 0, 0, 'WITHSCORES')[2])
end

local function time_has_come(id)
  local head = head_of(id)
  if not head then
    redis.call('HDEL', history, id)
    redis.call('HINCRBY', totals, 'lost', 1)
    return
  end
  local attempts, place, replays, failures = past_of(id)
  if attempts == '0' and replays == '0' and failures == '' then
    redis.call('HDEL', history, id)
  end
  line_up(id, head.lane, head.tenant, place or FRONT)
end

local function lease_is_over(id, now)
  local hold = redis.call('HGET', running, id)
  local head = head_of(id)
  redis.call('HDEL', running, id)
  redis.call('HDEL', progress, id)
  if hold then
    make_room(tenant_of(hold))
  end
  if not head then
    redis.call('HDEL', history, id)
    redis.call('HINCRBY', totals, 'lost', 1)
    return
  end
  if not hold then
    line_up(id, head.lane, head.tenant, FRONT)
    return
  end
  local attempt, place = string.match(hold, HOLD)
  note('lease_expired', worker_of(hold), id, attempt, now - started_of(hold))
  local failures, replays = remember(id, attempt, place, open_without_token(hold) .. ',"at":' .. digits(now)
    .. ',"code":"LEASE_EXPIRED","message":"the worker stopped renewing its lease: it was killed, frozen or cut off '
    .. 'from the queue"}')
  if tonumber(attempt) < head.max_attempts then
    line_up(id, head.lane, head.tenant, place)
    return
  end
  note('dead', worker_of(hold), id, attempt, now - started_of(hold))
  finish(id, redis.call('GET', records .. id), 'dead', open_without_token(hold) .. ',"at":' .. digits(now)
    .. ',"state":"dead","replays":' .. replays .. ',"failures":[' .. failures .. ']}', now)
end

-- Move what is due: expired tasks to their end; scheduled ones to their lanes; tasks whose lease is over back to their
-- lanes, or to the dead once their attempts are used up; tenants that have waited for their rate back into line.
-- At most `bound` of each, so that no call holds up the server.
-- Returns when the next of these is due, ms, or nil; a deadline only if it is that of a waiting or running task.
local function tidy(now, bound)
  local expired, next_deadline = due(deadlines, now, bound)
  for _, id in ipairs(expired) do
    local text = redis.call('GET', records .. id)
    if text and not outcome_of(text) then
      cut_short(id, text, 'expired', now, 'DEADLINE_EXCEEDED', '"its deadline has passed"', '')
    end
  end
  local back, next_scheduled = due(scheduled, now, bound)
  for _, id in ipairs(back) do
    time_has_come(id)
  end
  local over, next_lease = due(leases, now, bound)
  for _, id in ipairs(over) do
    lease_is_over(id, now)
  end
  if #over > 0 then
    open_the_cap()
  end
  local unparked, next_parked = due(parked, now, bound)
  for _, line in ipairs(unparked) do
    unpark(line)
  end
  local next_due
  for _, moment in pairs({ next_deadline or math.huge, next_scheduled or math.huge, next_lease or math.huge, next_parked or math.huge }) do
    if moment < math.huge and (not next_due or moment < next_due) then
      next_due = moment
    end
  end
  return next_due
end
