-- Note who uses the lockers of one prefix; the lockers' own keys are not touched.
-- KEYS  waiters zset, slowest zset of the day
-- ARGV  ttl_s, oldest waiter's age_s, slowest kept, then per note one of
--       'holder', key, ttl_s, record | 'waiter', age_s, member | 'slow', elapsed_s, record
local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
local index = 4
while index <= #ARGV do
  local kind, first, second, third = unpack(ARGV, index, index + 3)
  if kind == 'holder' then
    redis.call('SET', first, third, 'EX', second)
  elseif kind == 'waiter' then
    redis.call('ZADD', KEYS[1], string.format('%.6f', seconds - tonumber(first)), second)
  else
    redis.call('ZADD', KEYS[2], first, second)
  end
  index = index + (kind == 'holder' and 4 or 3)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', seconds - tonumber(ARGV[2]))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1001)
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[3]))
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
return 'ok'
