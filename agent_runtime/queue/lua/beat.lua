-- Record a heartbeat.
--
-- KEYS: instances beats cordons interfaces described
-- ARGV: instance info interface text
-- `interface` is the digest of what the instance says about its Agent, '' for nothing; `text` is that itself, '' if it
-- may be known.
--
-- Guarantee: the time is the server's, so that beats of hosts with different clocks compare.
--
-- Returns the sum of 1 if the instance is cordoned, and of 2 if the text is not known and must be sent.

-- @include clock

local now = digits(clock())
redis.call('ZADD', instances, now, instance)
redis.call('HSET', beats, instance, info)
local answer = redis.call('HEXISTS', cordons, instance)
if interface == '' then
  return answer
end
if text ~= '' then
  redis.call('HSETNX', interfaces, interface, now .. ' ' .. text)
elseif redis.call('HEXISTS', interfaces, interface) == 0 then
  return answer + 2
end
redis.call('ZADD', described, now, interface)
return answer
