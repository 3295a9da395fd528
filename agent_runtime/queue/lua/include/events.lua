-- What happened in this call, collected and added to the queue's events at its end: an entry for up to 100 tasks of the
-- same kind. Its fields: k the kind; b who, as JSON; t the tasks: id, attempt (0: none), ms it took (-1: nothing ended).
local EVENTS_IN_ENTRY = 100
local happened = {}

local function note(kind, by, id, attempt, ms)
  local last = happened[#happened]
  if not last or last.kind ~= kind or last.by ~= by or last.count >= EVENTS_IN_ENTRY then
    last = { kind = kind, by = by, count = 0 }
    happened[#happened + 1] = last
  end
  if id then
    last.count = last.count + 1
    last[#last + 1] = id
    last[#last + 1] = attempt or 0
    last[#last + 1] = ms or -1
  end
end

-- The same for many tasks at once, `first` to `last` of `ids`.
local function note_all(kind, by, ids, first, last, attempt, ms)
  if last - first < 10 then
    for i = first, last do
      note(kind, by, ids[i], attempt, ms)
    end
    return
  end
  local tail = ' ' .. (attempt or 0) .. ' ' .. (ms or -1)
  for start = first, last, EVENTS_IN_ENTRY do
    local entry = { kind = kind, by = by, count = EVENTS_IN_ENTRY }
    entry[1] = table.concat(ids, tail .. ' ', start, math.min(start + EVENTS_IN_ENTRY - 1, last)) .. tail
    happened[#happened + 1] = entry
  end
end

local function record_events()
  for _, entry in ipairs(happened) do
    redis.call('XADD', events, 'MAXLEN', '~', keep, '*', 'k', entry.kind, 'b', entry.by or '', 't', table.concat(entry, ' '))
  end
end
