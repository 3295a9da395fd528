-- Record a heartbeat.
--
-- KEYS: instances beats
-- ARGV: instance info
--
-- Guarantee: the time is the server's, so that beats of hosts with different clocks compare.
--
-- Returns 1.

-- @include clock

redis.call('ZADD', instances, digits(clock()), instance)
redis.call('HSET', beats, instance, info)
return 1
