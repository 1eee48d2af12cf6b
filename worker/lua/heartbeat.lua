-- Claim or refresh a node's record, and look whether a run is overdue.
-- KEYS  nodes zset, node hash, runs:open zset
-- ARGV  name, owner, alive_s, ttl_s, then field/value pairs of the record
-- Gives {1, now, overdue run ids} or {0, owner's address} when another live process has the name.
local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
local owner = redis.call('HGET', KEYS[2], 'owner')
if owner and owner ~= ARGV[2] then
  local seen = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if seen and seconds - tonumber(seen) < tonumber(ARGV[3]) then
    return {0, redis.call('HGET', KEYS[2], 'address') or ''}
  end
end
if #ARGV > 4 then
  redis.call('HSET', KEYS[2], 'owner', ARGV[2], unpack(ARGV, 5))
end
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('ZADD', KEYS[1], seconds, ARGV[1])
local overdue = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', seconds, 'LIMIT', 0, 16)
return {1, now[1], now[2], overdue}
