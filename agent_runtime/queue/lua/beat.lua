-- Record a heartbeat.
--
-- KEYS: instances beats cordons
-- ARGV: instance info
--
-- Guarantee: the time is the server's, so that beats of hosts with different clocks compare.
--
-- Returns 1 if the instance is cordoned, else 0.

-- @include clock

redis.call('ZADD', instances, digits(clock()), instance)
redis.call('HSET', beats, instance, info)
return redis.call('HEXISTS', cordons, instance)
