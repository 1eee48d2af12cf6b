-- Add a batch of one recorder's records, each at most once, or refuse the whole batch.
-- Comes after room.lua and entries.lua, whose keys and arguments are the first.
-- KEYS[5]  last sequence number of the recorder
-- ARGV[12]  ttl_s, then of each entry, in rising order, its sequence number
-- Returns {'ok', added, 0}, {'full', 0, 0}, {'tight', 0, 0} or {'wait', milliseconds, 0}.
local room, wait_ms = look_for_room()
if room ~= 'ok' then return {room, wait_ms, 0} end

local last, add_entry, added = tonumber(redis.call('GET', KEYS[5]) or 0), entries(), 0
for at = 13, #ARGV do
  local sequence = tonumber(ARGV[at])
  if sequence > last then
    add_entry(at - 12)
    last, added = sequence, added + 1
  end
end
redis.call('SET', KEYS[5], string.format('%.0f', last), 'EX', ARGV[12])
return {'ok', added, 0}
