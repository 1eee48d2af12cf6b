-- Write a run and enqueue its first rows, unless the same plan has an open one. Comes after what is known
-- of runs (`worker/wire/rows.py`) and commands.lua.
-- KEYS  the plan's key, run hash, runs zset, open runs zset, results stream
-- ARGV  1 to join an open run, run id, what the key of a run begins with, ttl_s, seconds until the run is
--       looked at, number of field strings, field strings, then commands
-- Returns {run id, 1 if it is new, when it was created, id of the newest result before it}
local join, run, prefix, ttl_s, due_s, size = unpack(ARGV, 1, 6)
local other = redis.call('GET', KEYS[1])
-- Asked again, as the answer was lost on its way.
if other == run then return {run, 1, unpack(redis.call('HMGET', KEYS[2], CREATED, BEGUN))} end
if join == '1' and other and #other <= 80 and string.find(other, '^[%w._-]+$') then
  local of_other = redis.call('HMGET', prefix .. other, STATUS, CANCEL)
  if of_other[1] == RUNNING and not of_other[2] then return {other, 0} end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local newest = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)[1]
local begun, created = newest and newest[1] or '0-0', string.format('%.6f', now)
redis.call('HSET', KEYS[2], CREATED, created, BEGUN, begun, unpack(ARGV, 7, 6 + size))
redis.call('EXPIRE', KEYS[2], ttl_s)
redis.call('SET', KEYS[1], run, 'EX', ttl_s)
redis.call('ZADD', KEYS[3], created, run)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ttl_s)
redis.call('ZADD', KEYS[4], now + due_s, run)
carry_out(7 + size)
return {run, 1, created, begun}
