-- Scores of ready tasks: priority first, then the order of arrival. 10 * 2^43 < 2^53, so they are exact.
local PRIORITY_SPAN = 2 ^ 43

-- The lane of tasks for one agent, or the lane '' of tasks that any agent of the queue may do.
local function lane_of(agent)
  return agent == '' and '' or 'a:' .. agent
end

-- Idle workers block on the bells of their lanes. One token is enough: whoever takes it and leaves work behind
-- rings again, so a batch wakes as many workers as it needs, one after the other, and never all of them at once.
local function ring(lane)
  local bell = wake .. lane
  if redis.call('LLEN', bell) == 0 then
    redis.call('RPUSH', bell, '1')
  end
end

-- Put a task that nobody holds into its lane, at the place it had before.
local function requeue(id, agent, score)
  local lane = lane_of(agent)
  redis.call('ZADD', ready .. lane, score, id)
  if lane ~= '' then
    redis.call('SADD', lanes, lane)
  end
  ring(lane)
end
