-- Look up a few fields of the records of nodes, and when each node was last heard, in one command.
-- KEYS  nodes zset, node hashes
-- ARGV  number of names, their names, then the fields
-- Returns for each node its fields and the seconds since its last heartbeat, as text; false where there
-- is none, and of all fields of a key that is of another type.
local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
local count, records = tonumber(ARGV[1]), {}
for i = 1, count do
  local values = redis.pcall('HMGET', KEYS[i + 1], unpack(ARGV, count + 2))
  if values.err then
    values = {}
    for j = 1, #ARGV - count - 1 do values[j] = false end
  end
  local seen = redis.call('ZSCORE', KEYS[1], ARGV[i + 1])
  values[#ARGV - count] = seen and tostring(seconds - tonumber(seen))
  records[i] = values
end
return records
