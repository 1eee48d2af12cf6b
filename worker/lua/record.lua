-- Add a batch of one recorder's records, each at most once, or refuse the whole batch.
-- Comes after room.lua.
-- KEYS  results stream, limits hash, last sequence number of the recorder
-- ARGV  max entries, max bytes, ttl_s, then per record in rising order: sequence number,
--       number of field strings, field strings
-- Gives {'ok', added} or {'full', 0}.
if not has_room(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) then
  return {'full', 0}
end

local last = tonumber(redis.call('GET', KEYS[3]) or 0)
local added, at = 0, 4
while at <= #ARGV do
  local sequence, size = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  if sequence > last then
    redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 2, at + 1 + size))
    last, added = sequence, added + 1
  end
  at = at + 2 + size
end
redis.call('SET', KEYS[3], string.format('%.0f', last), 'EX', ARGV[3])
return {'ok', added}
