-- Add a batch of one recorder's records, each at most once, or refuse the whole batch.
-- Comes after room.lua, whose keys and arguments are the first.
-- KEYS[5]  last sequence number of the recorder
-- ARGV[11]  ttl_s, then per record in rising order: sequence number, number of field strings, field
--          strings
-- Returns {'ok', added, 0}, {'full', 0, 0}, {'tight', 0, 0} or {'wait', milliseconds, 0}.
local room, wait_ms = look_for_room()
if room ~= 'ok' then return {room, wait_ms, 0} end

local last = tonumber(redis.call('GET', KEYS[5]) or 0)
local added, at = 0, 12
while at <= #ARGV do
  local sequence, size = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  if sequence > last then
    redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 2, at + 1 + size))
    last, added = sequence, added + 1
  end
  at = at + 2 + size
end
redis.call('SET', KEYS[5], string.format('%.0f', last), 'EX', ARGV[11])
return {'ok', added, 0}
