-- Claim or refresh a node's record, and look whether a run is overdue.
-- KEYS  nodes zset, node hash, runs:open zset, when Redis was back
-- ARGV  name, owner, alive_s, ttl_s, claim_s, late (1 when this node's own last heartbeat is older
--       than it should be), then field/value pairs of the record
-- Gives {1, seconds, microseconds, overdue run ids}, or {0, address of the owner} when another
-- live process has the name.
local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
local owner = redis.call('HGET', KEYS[2], 'owner')
if owner and owner ~= ARGV[2] then
  local seen = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if seen and seconds - tonumber(seen) < tonumber(ARGV[3]) then
    return {0, redis.call('HGET', KEYS[2], 'address') or ''}
  end
end

-- No node was heard for half of the time a node may be silent: it was Redis that was away, or
-- could not be reached. The others get time to report before any of them counts as lost.
local newest = ARGV[6] == '1' and redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
if newest and seconds - tonumber(newest) > tonumber(ARGV[3]) / 2 then
  redis.call('SET', KEYS[4], seconds, 'EX', 2 * tonumber(ARGV[3]))
end

local new = redis.call('HSET', KEYS[2], 'owner', ARGV[2], unpack(ARGV, 7))
-- Days to live need no renewal every few seconds.
if new > 0 or seconds % 3600 < 15 then redis.call('EXPIRE', KEYS[2], ARGV[4]) end
redis.call('ZADD', KEYS[1], seconds, ARGV[1])

-- Whoever sees an overdue run has it for a while, so that one advance is enqueued, not one a node.
local overdue = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', seconds, 'LIMIT', 0, 16)
for _, run in ipairs(overdue) do
  redis.call('ZADD', KEYS[3], 'XX', seconds + tonumber(ARGV[5]), run)
end
return {1, now[1], now[2], overdue}
