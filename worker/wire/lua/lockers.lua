-- Note who uses the lockers of one prefix; the lockers' own keys are not touched.
-- KEYS  waiters zset, slowest zset of the day
-- ARGV  ttl_s, oldest waiter's age_s, slowest kept, then per note one of
--       'holder', key, ttl_s, record | 'waiter', age_s, member | 'slow', elapsed_s, record
local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
local at = 4
while at <= #ARGV do
  local kind = ARGV[at]
  if kind == 'holder' then
    redis.call('SET', ARGV[at + 1], ARGV[at + 3], 'EX', ARGV[at + 2])
    at = at + 4
  elseif kind == 'waiter' then
    redis.call('ZADD', KEYS[1], string.format('%.6f', seconds - tonumber(ARGV[at + 1])), ARGV[at + 2])
    at = at + 3
  else
    redis.call('ZADD', KEYS[2], ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', seconds - tonumber(ARGV[2]))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1001)
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[3]))
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
return 'ok'
