-- What scripts must know of a task is read from its texts without decoding JSON: their beginnings have a fixed form.

-- max_attempts and agent ('' for any) of a task; nil if its record is gone.
local function head_of(id)
  local head = redis.call('GETRANGE', records .. id, 0, 255)
  local max_attempts, agent = string.match(head, '^{"task":{"at":%d+,"nonce":"%x+","max_attempts":(%d+),"agent":"([^"]*)"')
  return tonumber(max_attempts), agent
end

-- A hold says who has a running task: {"token":"<16 hex digits>","started":…,"attempt":…,"worker":…,"place":…}.
-- `place` is the score that the task goes back to. Failures and outcomes begin with the hold's members.
local HOLD = '^{"token":"%x+","started":%d+,"attempt":(%d+),.*"place":(%d+)}$'

local function token_of(hold)
  return hold and string.sub(hold, 11, 26)
end

-- The members of a hold with the token, to be followed by more; and without it, so that the token counts for nothing.
local function open(hold)
  return string.sub(hold, 1, -2)
end
local function open_without_token(hold)
  return '{' .. string.sub(hold, 29, -2)
end

-- The past of a task that has failed and is not final: {"attempts":…,"place":…,"failures":[…]}.
local PAST = '^{"attempts":(%d+),"place":(%d+),"failures":%[(.*)%]}$'

-- Add a failure (JSON) to the past of a task. Returns all its failures, as the members of a JSON array.
local function remember(id, attempt, place, failure)
  local past = redis.call('HGET', history, id)
  if past then
    local _, _, failures = string.match(past, PAST)
    failure = failures .. ',' .. failure
  end
  redis.call('HSET', history, id, '{"attempts":' .. attempt .. ',"place":' .. place .. ',"failures":[' .. failure .. ']}')
  return failure
end
