-- The place of a task whose own is not known any more. That takes a server that evicts keys: the task goes first,
-- rather than being lost.
local FRONT = '0'

-- What of a timer (scheduled, leases) is due, at most `bound`; and when the first one that is left is due, or nil.
local function due(timer, now, bound)
  local first = tonumber(redis.call('ZRANGE', timer, 0, 0, 'WITHSCORES')[2])
  if not first or first > now then
    return {}, first
  end
  local ids = redis.call('ZRANGEBYSCORE', timer, '-inf', digits(now), 'LIMIT', 0, bound)
  redis.call('ZREM', timer, unpack(ids))
  return ids, tonumber(redis.call('ZRANGE', timer, 0, 0, 'WITHSCORES')[2])
end

local function lease_is_over(id, now)
  local hold = redis.call('HGET', running, id)
  local max_attempts, agent = head_of(id)
  redis.call('HDEL', running, id)
  if not max_attempts then
    redis.call('HDEL', history, id)
    return
  end
  if not hold then
    requeue(id, agent, FRONT)
    return
  end
  local attempt, place = string.match(hold, HOLD)
  local failures = remember(id, attempt, place, open_without_token(hold) .. ',"at":' .. digits(now)
    .. ',"code":"LEASE_EXPIRED","message":"the worker stopped renewing its lease: it was killed, frozen or cut off '
    .. 'from the queue"}')
  if tonumber(attempt) < max_attempts then
    requeue(id, agent, place)
    return
  end
  local record = redis.call('GET', records .. id)
  redis.call('SET', records .. id, string.sub(record, 1, -2) .. ',"outcome":' .. open_without_token(hold)
    .. ',"state":"dead","at":' .. digits(now) .. ',"failures":[' .. failures .. ']}}')
  redis.call('HDEL', history, id)
  redis.call('ZADD', dead, digits(now), id)
  redis.call('HINCRBY', totals, 'failed', 1)
  return true
end

-- Move what is due: scheduled tasks to their lanes; tasks whose lease is over back to their lanes, or to the dead once
-- their attempts are used up. At most `bound` of each, so that no call holds up the server.
-- Returns when the next scheduled task and the next lease are due, ms, or nil.
local function tidy(now, bound)
  local back, next_scheduled = due(scheduled, now, bound)
  for _, id in ipairs(back) do
    local past = redis.call('HGET', history, id)
    local _, agent = head_of(id)
    if agent then
      local _, place = string.match(past or '', PAST)
      requeue(id, agent, place or FRONT)
    else
      redis.call('HDEL', history, id)
    end
  end

  local over, next_lease = due(leases, now, bound)
  local died = {}
  for _, id in ipairs(over) do
    if lease_is_over(id, now) then
      died[#died + 1] = id
    end
  end
  if #died > 0 then
    redis.call('PUBLISH', done, table.concat(died, ' '))
  end
  return next_scheduled, next_lease
end
