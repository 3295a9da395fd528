-- Let instances take nothing new, or let them take tasks again as far as somebody had cordoned them.
--
-- KEYS: wake cordons revoked
-- ARGV: by cordoned
--   then the instances
-- `cordoned` is 1 or 0.
--
-- Guarantee: an instance is cordoned until everybody who cordoned it has lifted that. Those for whom something changes
-- are told, and one that waits for tasks wakes to find it out.
--
-- Returns 1.

-- @include clock
-- @include lane

local FIRST = 3
local now = digits(clock())
local told = {}
for i = FIRST, #ARGV do
  local instance = ARGV[i]
  local text = redis.call('HGET', cordons, instance)
  local names = text and cjson.decode(text) or {}
  if cordoned == '1' and not names[by] then
    names[by] = now
  elseif cordoned == '0' and names[by] then
    names[by] = nil
  else
    names = nil
  end
  if names then
    if next(names) then
      redis.call('HSET', cordons, instance, cjson.encode(names))
    else
      redis.call('HDEL', cordons, instance)
    end
    if not text then
      ring('i:' .. instance)
    end
    if not text or not next(names) then
      told[#told + 1] = '@' .. instance
    end
  end
end
if #told > 0 then
  redis.call('PUBLISH', revoked, table.concat(told, ' '))
end
return 1
