-- Queue a batch of tasks: all of them, or none.
--
-- KEYS: records ready wake lanes sequence
-- ARGV: nonce
--   then 4 for each task: id, priority (0 to 9), agent ('' for any), its record from `"max_attempts":` on
--
-- Guarantee: atomic. A batch that is sent again with the same nonce, because the reply got lost, is applied once.
-- Inside a priority tasks keep the order of the batch, and batches the order in which they arrive.
--
-- Returns {0} QUEUED, or {1, i} DUPLICATE: the id of the i-th task (from 0) is taken, nothing was changed.

-- @include clock
-- @include lane

-- Lua's stack holds about 8,000 values; longer argument lists are cut.
local CHUNK = 1000
local PER_TASK = 4
local FIRST = 2
local count = (#ARGV - FIRST + 1) / PER_TASK

for start = 0, count - 1, CHUNK do
  local keys = {}
  for i = start, math.min(start + CHUNK, count) - 1 do
    keys[#keys + 1] = records .. ARGV[FIRST + i * PER_TASK]
  end
  if redis.call('EXISTS', unpack(keys)) > 0 then
    for i, key in ipairs(keys) do
      local head = redis.call('GETRANGE', key, 0, 127)
      if head ~= '' then
        if string.match(head, '^{"task":{"at":%d+,"nonce":"(%x+)"') == nonce then
          return { 0 }
        end
        return { 1, start + i - 1 }
      end
    end
  end
end

local last = redis.call('INCRBY', sequence, count)
local opening = '{"task":{"at":' .. digits(clock()) .. ',"nonce":"' .. nonce .. '",'
local rung = {}
for start = 0, count - 1, CHUNK do
  local writes = {}
  local members = {}
  for i = start, math.min(start + CHUNK, count) - 1 do
    local at = FIRST + i * PER_TASK
    local id, agent = ARGV[at], ARGV[at + 2]
    writes[#writes + 1] = records .. id
    writes[#writes + 1] = opening .. ARGV[at + 3]
    local lane = lane_of(agent)
    local scored = members[lane]
    if not scored then
      scored = {}
      members[lane] = scored
    end
    scored[#scored + 1] = (9 - ARGV[at + 1]) * PRIORITY_SPAN + last - count + i + 1
    scored[#scored + 1] = id
  end
  redis.call('MSET', unpack(writes))
  for lane, scored in pairs(members) do
    redis.call('ZADD', ready .. lane, unpack(scored))
    rung[lane] = true
  end
end
for lane in pairs(rung) do
  if lane ~= '' then
    redis.call('SADD', lanes, lane)
  end
  ring(lane)
end
return { 0 }
