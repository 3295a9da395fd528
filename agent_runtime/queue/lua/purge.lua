-- Remove dead tasks for good.
--
-- KEYS: records parents heirs chunks said dead events
-- ARGV: keep result_ttl_s by
--   then the ids
-- `by` is who asks, as the inside of a JSON string.
--
-- Guarantee: what is not dead is left alone.
--
-- Returns the ids that were dead, and are gone now.

-- @include heirs
-- @include record
-- @include events

local FIRST = 4
local purged = {}
for i = FIRST, #ARGV do
  local id = ARGV[i]
  if redis.call('ZREM', dead, id) == 1 then
    local head = head_of(id)
    if head and head.blob then
      for n = 1, head.chunks do
        redis.call('DEL', chunks .. head.blob .. ':' .. n)
      end
    end
    renounce(id)
    redis.call('DEL', records .. id, said .. id)
    note('purged', by, id)
    purged[#purged + 1] = id
  end
end
record_events()
return purged
