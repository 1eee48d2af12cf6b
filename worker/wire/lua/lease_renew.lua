-- Hold on to both ends for longer. An end that lapsed and that nobody took is taken again; one that
-- another holds by now means that the lease is lost, and nothing is renewed.
-- What the test has cost so far is reserved where it is more than that was.
-- KEYS  lease prefix, budget prefix
-- ARGV  token, ttl_ms, near, far, bytes that it has cost at least, then the links
-- Gives 1, or 0 when the lease is lost
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for i = 3, 4 do
  local held = redis.call('GET', KEYS[1] .. ARGV[i])
  if held and held ~= ARGV[1] then return 0 end
end
for i = 3, 4 do
  redis.call('SET', KEYS[1] .. ARGV[i], ARGV[1], 'PX', ARGV[2])
end
local reserved = redis.call('GET', KEYS[2] .. 'reserved:' .. ARGV[1])
if reserved then
  local bytes, day = string.match(reserved, '(%d+):(%d+)')
  local more = ARGV[5] - bytes
  if more > 0 then
    for i = 3, 4 do
      local key = KEYS[2] .. ARGV[i] .. ':' .. day
      if redis.call('EXISTS', key) == 1 then
        redis.call('INCRBY', key, string.format('%.0f', more))
      end
    end
    redis.call('SET', KEYS[2] .. 'reserved:' .. ARGV[1], ARGV[5] .. ':' .. day, 'KEEPTTL')
  end
end
for i = 6, #ARGV do
  local key = KEYS[1] .. 'link:' .. ARGV[i]
  redis.call('ZADD', key, now + tonumber(ARGV[2]), ARGV[1])
  redis.call('EXPIRE', key, 86400)
end
return 1
