-- What a task is told of its parents. A large result stays in its chunks, which live as long as somebody may ask for
-- them: `heirs` counts who may.
local function blob_of(outcome)
  return string.match(outcome, ',"blob":"(%x+)","chunks":(%d+)}$')
end

local function inherit(child, parent, outcome)
  local blob, count = blob_of(outcome)
  if redis.call('HSET', parents .. child, parent, outcome) == 1 and blob then
    redis.call('HINCRBY', heirs, blob, 1)
    for n = 1, count do
      redis.call('PERSIST', chunks .. blob .. ':' .. n)
    end
  end
end

local function renounce(child)
  for _, outcome in ipairs(redis.call('HVALS', parents .. child)) do
    local blob, count = blob_of(outcome)
    if blob and redis.call('HINCRBY', heirs, blob, -1) <= 0 then
      redis.call('HDEL', heirs, blob)
      for n = 1, count do
        redis.call('EXPIRE', chunks .. blob .. ':' .. n, result_ttl_s)
      end
    end
  end
  redis.call('DEL', parents .. child)
end
