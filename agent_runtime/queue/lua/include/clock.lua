-- The server's clock in milliseconds. The only clock of the queue: clients' clocks may differ, this one is shared.
local microseconds
local function clock()
  local time = redis.call('TIME')
  microseconds = time[2] % 1000
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A Lua number as digits; the default format would round large ones.
local function digits(number)
  return string.format('%.0f', number)
end
