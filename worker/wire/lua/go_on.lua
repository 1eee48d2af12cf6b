-- Write how a run goes on, if it is still as it was looked at, and enqueue what comes. Comes after
-- what is known of runs (`worker/wire/rows.py`) and commands.lua.
-- KEYS  run hash, bitmap of its phase, open runs zset
-- ARGV  run id, its phase ('' to end it in any, cancelled or not), name of its field of how many
--       results that has, so many at least, the bitmap ('' where that number will do), seconds until
--       the run is looked at ('' never again), name of the field that gets the time ('' none), number of
--       field strings, field strings, then commands
-- Returns 1, or 0 where it is no longer so: another was first, or Redis came back with an older copy.
local run, phase, DONE, least, bitmap, due_s, AT = unpack(ARGV, 1, 7)
if phase ~= '' then
  local status, cancelled, present = unpack(redis.call('HMGET', KEYS[1], STATUS, CANCEL, PHASE))
  if status ~= RUNNING or cancelled or present ~= phase then return 0 end
  if bitmap == '' then
    if (tonumber(redis.call('HGET', KEYS[1], DONE)) or 0) < tonumber(least) then return 0 end
  elseif redis.call('GET', KEYS[2]) ~= bitmap then
    return 0
  end
end

local time = redis.call('TIME')
local now, size = tonumber(time[1]) + tonumber(time[2]) / 1e6, tonumber(ARGV[8])
redis.call('HSET', KEYS[1], unpack(ARGV, 9, 8 + size))
if AT ~= '' then redis.call('HSET', KEYS[1], AT, string.format('%.6f', now)) end
if due_s == '' then
  redis.call('ZREM', KEYS[3], run)
else
  redis.call('ZADD', KEYS[3], 'XX', now + due_s, run)
end
carry_out(9 + size)
return 1
