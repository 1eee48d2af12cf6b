-- Say whether there is room for results, or would be once what is not needed is trimmed. Writes nothing,
-- so that it has an answer in a Redis that is at its maxmemory, too.
-- Comes after room.lua, whose arguments are the first.
-- Returns {'ok', 0, 0}, or what has no room.
local now = seconds_now()
local full, of = what_is_full(read_limits(), read_pace(), now)
if full == 'full' then
  local oldest, needed = redis.call('XRANGE', RESULTS, '-', '+', 'COUNT', 1)[1], first_needed(now)
  if oldest and needed and oldest[1] ~= needed and earlier(oldest[1], needed) == oldest[1] then
    full = nil
  end
end
return {full or 'ok', of or 0, 0}
