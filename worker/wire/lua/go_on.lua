-- Write how a run goes on, if it is still as it was looked at, and enqueue what comes. Comes after
-- commands.lua.
-- KEYS  run hash, bitmap of its phase, open runs zset
-- ARGV  run id, name of its field of the phase, that phase ('' whatever it is), name of its field of how
--       many results that has, so many at least, the bitmap ('' where that number will do), seconds until
--       the run is looked at ('' never again), name of the field that gets the time ('' none), number of
--       field strings, field strings, then commands
-- Returns 1, or 0 where it is no longer so: another was first, or Redis came back with an older copy.
local run, PHASE, phase, DONE, least, bitmap, due_s, AT = unpack(ARGV, 1, 8)
if phase ~= '' then
  if redis.call('HGET', KEYS[1], PHASE) ~= phase then return 0 end
  if bitmap == '' then
    if (tonumber(redis.call('HGET', KEYS[1], DONE)) or 0) < tonumber(least) then return 0 end
  elseif redis.call('GET', KEYS[2]) ~= bitmap then
    return 0
  end
end

local time = redis.call('TIME')
local now, size = tonumber(time[1]) + tonumber(time[2]) / 1e6, tonumber(ARGV[9])
redis.call('HSET', KEYS[1], unpack(ARGV, 10, 9 + size))
if AT ~= '' then redis.call('HSET', KEYS[1], AT, string.format('%.6f', now)) end
if due_s == '' then
  redis.call('ZREM', KEYS[3], run)
else
  redis.call('ZADD', KEYS[3], 'XX', now + due_s, run)
end
carry_out(10 + size)
return 1
