-- Shut a gate of the queue, or open it again as far as somebody had shut it.
--
-- KEYS: ready wake lanes gates events
-- ARGV: keep gate by shut event
-- `gate` is claims or submissions; `shut` 1 or 0; `event` is noted if something changes.
--
-- Guarantee: a gate is open when everybody who shut it has opened it. Workers that waited for it hear of it.
--
-- Returns 1 if something changed, else 0.

-- @include clock
-- @include lane
-- @include events

local field = gate .. ' ' .. by
local changed
if shut == '1' then
  changed = redis.call('HSETNX', gates, field, digits(clock()))
else
  changed = redis.call('HDEL', gates, field)
end
if changed == 1 then
  note(event, by)
  record_events()
  if gate == 'claims' and shut == '0' then
    ring_all()
  end
end
return changed
