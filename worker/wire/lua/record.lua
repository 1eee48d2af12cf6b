-- Add a batch of one recorder's records, each at most once, or refuse the whole batch.
-- Comes after room.lua and entries.lua, whose arguments are the first.
-- KEYS[1]  last sequence number of the recorder
-- ARGV[4]  ttl_s, then of each entry, in rising order, its sequence number
-- Returns {'ok', added, 0}, {'full', 0, 0}, {'tight', 0, 0} or {'wait', milliseconds, 0}.
local room, wait_ms = look_for_room()
if room ~= 'ok' then return {room, wait_ms, 0} end

local last, add_entry, added = tonumber(redis.call('GET', KEYS[1]) or 0), entries(), 0
for at = 5, #ARGV do
  local sequence = tonumber(ARGV[at])
  if sequence > last then
    add_entry(at - 4)
    last, added = sequence, added + 1
  end
end
redis.call('SET', KEYS[1], string.format('%.0f', last), 'EX', ARGV[4])
return {'ok', added, 0}
