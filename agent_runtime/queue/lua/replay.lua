-- Queue dead tasks again, at the end of their priority, with all their attempts before them.
--
-- KEYS: records ready wake lanes lines lined parked positions tenants history dead totals events sequence
-- ARGV: keep by
--   then the ids
-- `by` is who asks, as the inside of a JSON string.
--
-- Guarantee: what is not dead is left alone, so repeating does no harm. Earlier failures are kept; a deadline is not.
--
-- Returns the ids that were dead, and are queued now.

-- @include clock
-- @include lane
-- @include record
-- @include events

local FIRST = 3

local function without_deadline(record)
  local fixed, rest = string.match(record, '^(.-)(,"id":".*)$')
  fixed = string.gsub(string.gsub(fixed, ',"deadline":%d+', ''), ',"ttl":%d+', '')
  fixed = string.gsub(fixed, '"flags":"(%a*)"', function(flags)
    return '"flags":"' .. string.gsub(flags, 'd', '') .. '"'
  end)
  return fixed .. rest
end

local replayed = {}
for i = FIRST, #ARGV do
  local id = ARGV[i]
  local text = redis.call('ZSCORE', dead, id) and redis.call('GET', records .. id)
  local outcome, record = nil, nil
  if text then
    outcome, record = outcome_of(text)
  end
  if outcome then
    record = without_deadline(record)
    local head = head_of_text(record)
    local priority = tonumber(string.match(string.sub(record, 1, 1024), '"priority":(%d)'))
    local replays, failures = string.match(outcome, '"replays":(%d+),"failures":%[(.*)%]}$')
    local score = digits((9 - priority) * PRIORITY_SPAN + redis.call('INCR', sequence))
    redis.call('ZREM', dead, id)
    redis.call('SET', records .. id, record)
    redis.call('HSET', history, id, past_text('0', score, digits(replays + 1), failures))
    redis.call('HINCRBY', totals, 'replayed', 1)
    line_up(id, head.lane, head.tenant, score)
    note('replayed', by, id)
    replayed[#replayed + 1] = id
  end
end
record_events()
return replayed
