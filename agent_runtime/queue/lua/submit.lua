-- Queue a batch of tasks: all of them, or none.
--
-- KEYS: records ready wake lanes sequence
-- ARGV: nonce count
--   then runs of neighbours that go to the same place: agent ('' for any), priority (0 to 9), length,
--   and for each task of the run: id, its record from `"max_attempts":` on
--
-- Guarantee: atomic. A batch that is sent again with the same nonce, because the reply got lost, is applied once.
-- Inside a priority tasks keep the order of the batch, and batches the order in which they arrive.
--
-- Returns {0} QUEUED, or {1, n} DUPLICATE: the id of task n (from 0) is taken, nothing was changed.

-- @include clock
-- @include lane

local QUEUED, DUPLICATE = 0, 1
-- Lua's stack holds about 8,000 values; longer argument lists are cut.
local CHUNK = 1000
local FIRST = 3
count = tonumber(count)

local ids, keys, texts, runs = {}, {}, {}, {}
local at, n = FIRST, 0
while n < count do
  local length = tonumber(ARGV[at + 2])
  runs[#runs + 1] = { lane = lane_of(ARGV[at]), priority = tonumber(ARGV[at + 1]), first = n + 1, last = n + length }
  at = at + 3
  for _ = 1, length do
    n = n + 1
    ids[n] = ARGV[at]
    keys[n] = records .. ARGV[at]
    texts[n] = ARGV[at + 1]
    at = at + 2
  end
end

for start = 1, count, CHUNK do
  local last = math.min(start + CHUNK - 1, count)
  if redis.call('EXISTS', unpack(keys, start, last)) > 0 then
    for i = start, last do
      local head = redis.call('GETRANGE', keys[i], 0, 127)
      if head ~= '' then
        if string.match(head, '^{"task":{"at":%d+,"nonce":"(%x+)"') == nonce then
          return { QUEUED }
        end
        return { DUPLICATE, i - 1 }
      end
    end
  end
end

local opening = '{"task":{"at":' .. digits(clock()) .. ',"nonce":"' .. nonce .. '",'
for start = 1, count, CHUNK do
  local writes, size = {}, 0
  for i = start, math.min(start + CHUNK - 1, count) do
    writes[size + 1] = keys[i]
    writes[size + 2] = opening .. texts[i]
    size = size + 2
  end
  redis.call('MSET', unpack(writes))
end

local before = redis.call('INCRBY', sequence, count) - count
for _, run in ipairs(runs) do
  local base = (9 - run.priority) * PRIORITY_SPAN + before
  for start = run.first, run.last, CHUNK do
    local members, size = {}, 0
    for i = start, math.min(start + CHUNK - 1, run.last) do
      members[size + 1] = base + i
      members[size + 2] = ids[i]
      size = size + 2
    end
    redis.call('ZADD', ready .. run.lane, unpack(members))
  end
  if run.lane ~= '' then
    redis.call('SADD', lanes, run.lane)
  end
  ring(run.lane)
end
return { QUEUED }
