-- Whether anybody has shut a gate of the queue: claims or submissions.
local function is_shut(gate)
  for _, field in ipairs(redis.call('HKEYS', gates)) do
    if string.sub(field, 1, #gate + 1) == gate .. ' ' then
      return true
    end
  end
  return false
end
