-- End tasks before their time, wherever they are.
--
-- KEYS: records ready wake lanes lines lined parked positions tenants scheduled leases running history deadlines blocked kids parents heirs chunks progress said dead totals events capped full room done revoked
-- ARGV: keep result_ttl_s by message
--   then the ids
-- `by` is who cancels, as the inside of a JSON string; `message` says so and why, as a JSON string.
--
-- Guarantee: all ids are known, or nothing is changed. A final task stays as it is. The token of a running one is void
-- from now on, and its worker is told.
--
-- Returns {0, states}, one for each id, as they are now; or {1, n} UNKNOWN: there is no task of id n (from 0).

-- @include clock
-- @include lane
-- @include record
-- @include events
-- @include heirs
-- @include ending

local DONE, UNKNOWN = 0, 1
local FIRST = 5
local now = clock()
for i = FIRST, #ARGV do
  if redis.call('EXISTS', records .. ARGV[i]) == 0 then
    return { UNKNOWN, i - FIRST }
  end
end
local states = {}
for i = FIRST, #ARGV do
  local text = redis.call('GET', records .. ARGV[i])
  local outcome = outcome_of(text)
  if outcome then
    states[#states + 1] = state_of(outcome)
  else
    cut_short(ARGV[i], text, 'cancelled', now, 'CANCELLED', message, by)
    states[#states + 1] = 'cancelled'
  end
end
publish_ends()
record_events()
return { DONE, states }
