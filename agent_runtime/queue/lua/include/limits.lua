-- Limits of starts and of running tasks, of the whole queue (key '') and of each tenant. `limits` has six numbers, 0 where
-- there is none: ms between starts, starts at once, running tasks; and the same for each tenant.
local function limits_of(text)
  local numbers = {}
  for number in string.gmatch(text, '%S+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  return { interval = numbers[1], burst = numbers[2], running = numbers[3] },
    { interval = numbers[4], burst = numbers[5], running = numbers[6] }
end

-- How many may start now, at most `wanted`; and if fewer, when to ask again: ms, or math.huge for "when one has ended".
-- The rate is a GCRA: one number for each key says up to when the starts so far are paid for.
local function may_start(limit, key, count_running, wanted, now)
  local allowed, again = wanted, nil
  if limit.running > 0 then
    local left = limit.running - count_running
    if left < allowed then
      allowed, again = math.max(0, left), math.huge
    end
  end
  if limit.interval > 0 and allowed > 0 then
    local paid = math.max(now, tonumber(redis.call('ZSCORE', rates, key) or 0))
    local left = math.floor((now + limit.burst * limit.interval - paid) / limit.interval + 1e-6)
    if left < allowed then
      allowed, again = math.max(0, left), math.ceil(paid - (limit.burst - 1) * limit.interval)
    end
  end
  return allowed, again
end

local function pay(limit, key, count, now)
  if limit.interval > 0 and count > 0 then
    local paid = math.max(now, tonumber(redis.call('ZSCORE', rates, key) or 0))
    redis.call('ZADD', rates, string.format('%.17g', paid + count * limit.interval), key)
  end
end
