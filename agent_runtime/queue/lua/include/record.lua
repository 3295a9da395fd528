-- What scripts must know of a task is read from its texts without decoding JSON: their beginnings have a fixed form.
-- A record: {"task":{"at":<13 digits>,"nonce":"<16 hex digits>","flags":"…","max_attempts":…,"lane":"…",…,"payload":…}}
-- Flags: t has a tenant, d a deadline, b its payload in chunks, and f, s or r parents, of whose failure it dies (f),
-- is skipped (s), or not (r). Most tasks have none, which shows at a fixed place.
local FLAGS_AT = 65
local function is_plain(text)
  return string.byte(text, FLAGS_AT) == 34
end
local HEAD = '^{"task":{"at":(%d+),"nonce":"(%x+)","flags":"(%a*)","max_attempts":(%d+),"lane":"([^"]*)"(.*)'

-- The fixed part of a task: at, nonce, flags, max_attempts, lane, tenant ('' if none), due and chunks; nil if gone.
local function head_of_text(text)
  local at, nonce, flags, max_attempts, lane, rest = string.match(text, HEAD)
  if not at then
    return nil
  end
  local head = {
    at = at, nonce = nonce, flags = flags, max_attempts = tonumber(max_attempts), lane = lane, tenant = '',
  }
  if flags ~= '' then
    local fixed = string.match(rest, '^(.-),"id":')
    head.tenant = string.match(fixed, '^,"tenant":"([^"]*)"') or ''
    local delay = string.match(fixed, '"delay":(%d+)')
    head.due = tonumber(string.match(fixed, '"due":(%d+)')) or delay and at + delay
    head.blob, head.chunks = string.match(fixed, '"blob":"(%x+)","chunks":(%d+)')
  end
  return head
end
local function head_of(id)
  return head_of_text(redis.call('GETRANGE', records .. id, 0, 767))
end

-- A hold says who has a running task: {"token":"<16 hex digits>","started":<13 digits>,"attempt":…,"worker":"…",
-- "tenant":"…","place":…}, the tenant only if there is one. `place` is the score that the task goes back to. Failures
-- and outcomes begin with the hold's members.
local HOLD = '^{"token":"%x+","started":%d+,"attempt":(%d+),.*"place":(%d+)}$'

local function token_of(hold)
  return hold and string.sub(hold, 11, 26)
end
local function started_of(hold)
  return tonumber(string.sub(hold, 39, 51))
end
local function is_first_attempt(hold)
  return string.sub(hold, 63, 64) == '1,'
end
local function attempt_of(hold)
  return string.match(hold, '^%d+', 63)
end
-- As the inside of a JSON string.
local function worker_of(hold)
  return string.match(hold, '"worker":"(.-)","tenant":"[^"]*","place":%d+}$')
    or string.match(hold, '"worker":"(.*)","place":%d+}$')
end
local function tenant_of(hold)
  return string.match(hold, '"tenant":"([^"]*)","place":%d+}$')
end

-- The members of a hold with the token, to be followed by more; and without it, so that the token counts for nothing.
local function open(hold)
  return string.sub(hold, 1, -2)
end
local function open_without_token(hold)
  return '{' .. string.sub(hold, 29, -2)
end

-- The past of a task that has failed, or waits for its time or its parents, and is not final:
-- {"attempts":…,"place":…,"replays":…,"failures":[…]}.
local PAST = '^{"attempts":(%d+),"place":(%d+),"replays":(%d+),"failures":%[(.*)%]}$'
local function past_text(attempts, place, replays, failures)
  return '{"attempts":' .. attempts .. ',"place":' .. place .. ',"replays":' .. replays .. ',"failures":[' .. failures .. ']}'
end
-- Attempts, place (nil if there is no past), replays and failures, as text.
local function past_of(id)
  local past = redis.call('HGET', history, id)
  if not past then
    return '0', nil, '0', ''
  end
  return string.match(past, PAST)
end

-- Add a failure (JSON) to the past of a task. Returns all its failures, as the members of a JSON array, and replays.
local function remember(id, attempt, place, failure)
  local _, _, replays, failures = past_of(id)
  failures = failures == '' and failure or failures .. ',' .. failure
  redis.call('HSET', history, id, past_text(attempt, place, replays, failures))
  return failures, replays
end

-- A final task's text: its record with the outcome, and where the record was cut open.
local function with_outcome(text, outcome)
  return string.sub(text, 1, -2) .. ',"outcome":' .. outcome .. ',"cut":' .. #text .. '}'
end
-- The outcome (JSON) of a text, and its record as it was before; nil if it is not final.
local function outcome_of(text)
  local cut = string.match(string.sub(text, -32), '"cut":(%d+)}$')
  if cut then
    return string.sub(text, cut + 11, -9 - #cut), string.sub(text, 1, cut - 1) .. '}'
  end
end
local function state_of(outcome)
  return string.match(outcome, ',"state":"(%a+)"')
end
