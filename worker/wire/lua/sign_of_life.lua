-- Note that a row is still measured, if its run is still wanted. Comes after what is known of runs
-- (`worker/wire/rows.py`).
-- KEYS  run hash
-- ARGV  name of its field of the row's last sign, ttl_s
-- Returns 1, or 0 where the run is not wanted
local SEEN, ttl_s = unpack(ARGV)
local has = redis.call('HMGET', KEYS[1], STATUS, CANCEL)
if has[1] ~= RUNNING or has[2] then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], SEEN, string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1e6))
redis.call('EXPIRE', KEYS[1], ttl_s)
return 1
