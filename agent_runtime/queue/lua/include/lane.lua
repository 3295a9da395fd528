-- Scores of ready tasks: priority first, then the order of arrival. 10 * 2^43 < 2^53, so they are exact.
local PRIORITY_SPAN = 2 ^ 43

-- The score at which the priority of a score begins.
local function band(score)
  return math.floor(score / PRIORITY_SPAN) * PRIORITY_SPAN
end

-- Idle workers block on the bells of their lanes. One token is enough: whoever takes it and leaves work behind
-- rings again, so a batch wakes as many workers as it needs, one after the other, and never all of them at once.
local function ring(lane)
  local bell = wake .. lane
  if redis.call('LLEN', bell) == 0 then
    redis.call('RPUSH', bell, '1')
  end
end

-- Ring in every lane that holds something.
local function ring_all()
  local names = redis.call('SMEMBERS', lanes)
  names[#names + 1] = ''
  for _, lane in ipairs(names) do
    if redis.call('EXISTS', ready .. lane) == 1 then
      ring(lane)
    end
  end
end

-- A tenant's tasks wait in a line of their own, `<tenant>@<lane>`. In the lane the tenant has one place, as member
-- `@<tenant>`; ids never begin with @.
local function line_of(tenant, lane)
  return tenant .. '@' .. lane
end
local function tenant_and_lane(line)
  return string.match(line, '^([^@]*)@(.*)$')
end

-- Make the place of a tenant in a lane fit its line: none if the line is empty, else one of its next task's priority.
local function place_tenant(tenant, lane)
  local line, marker = line_of(tenant, lane), '@' .. tenant
  local score = tonumber(redis.call('ZRANGE', lines .. line, 0, 0, 'WITHSCORES')[2])
  if not score then
    redis.call('ZREM', ready .. lane, marker)
    redis.call('ZREM', parked, line)
    redis.call('HDEL', positions, line)
    redis.call('SREM', lined, line)
    return
  end
  if redis.call('ZSCORE', parked, line) then
    local position = tonumber(redis.call('HGET', positions, line))
    if band(position) ~= band(score) then
      redis.call('HSET', positions, line, digits(score))
    end
    return
  end
  local position = tonumber(redis.call('ZSCORE', ready .. lane, marker))
  if not position or band(position) ~= band(score) then
    redis.call('ZADD', ready .. lane, digits(score), marker)
  end
end

-- Put a task that nobody holds into its lane, at its place. Without `silently`, idle workers hear of it.
local function line_up(id, lane, tenant, score, silently)
  if tenant == '' then
    redis.call('ZADD', ready .. lane, score, id)
  else
    local line = line_of(tenant, lane)
    redis.call('ZADD', lines .. line, score, id)
    redis.call('SADD', lined, line)
    place_tenant(tenant, lane)
  end
  if lane ~= '' then
    redis.call('SADD', lanes, lane)
  end
  if not silently then
    ring(lane)
  end
end

-- Take a waiting task out of its lane. Returns whether it was there.
local function take_out(id, lane, tenant)
  if tenant == '' then
    return redis.call('ZREM', ready .. lane, id) == 1
  end
  local found = redis.call('ZREM', lines .. line_of(tenant, lane), id) == 1
  place_tenant(tenant, lane)
  return found
end

-- Let a parked tenant stand in its lane again, where it stood.
local function unpark(line)
  local tenant, lane = tenant_and_lane(line)
  local position = redis.call('HGET', positions, line)
  redis.call('ZREM', parked, line)
  redis.call('HDEL', positions, line)
  if position and redis.call('EXISTS', lines .. line) == 1 then
    redis.call('ZADD', ready .. lane, position, '@' .. tenant)
    place_tenant(tenant, lane)
    ring(lane)
  end
end

-- One task fewer runs. That may be what others wait for: those of the same tenant, and all if the whole queue is at
-- its limit.
local function make_room(tenant)
  if tenant then
    if redis.call('HINCRBY', tenants, tenant, -1) <= 0 then
      redis.call('HDEL', tenants, tenant)
    end
    if redis.call('EXISTS', parked) == 1 then
      local names = redis.call('SMEMBERS', lanes)
      names[#names + 1] = ''
      for _, lane in ipairs(names) do
        local line = line_of(tenant, lane)
        if redis.call('ZSCORE', parked, line) == 'inf' then
          unpark(line)
        end
      end
    end
  end
end
local function open_the_cap()
  if redis.call('DEL', capped) == 1 then
    ring_all()
  end
end
