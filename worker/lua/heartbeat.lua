-- Claim or refresh a node's record, and look whether a run is overdue.
-- KEYS  nodes zset, node hash, runs:open zset, when Redis was back
-- ARGV  name, owner, alive_s, ttl_s, claim_s, late (1 when this node's own last heartbeat is older
--       than it should be), settle_s, intent, instance, file, since, then field/value pairs of the
--       record, since among them. Intents: `claim` and `replace` of a process that starts, `beat`
--       and `insist` of one that has been registered.
-- Gives {'ok', seconds, microseconds, overdue run ids}, or what keeps this process from it, with
-- host and address of the other, and when that was last heard:
--   taken  another live node has the name
--   later  so has a process with the same token that began before this one, and lives
--   heard  to a claim: so had one that was heard so lately that it may live; try again
--   insist to a beat: one that began later has the name; who asks again shows that it lives
local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
local instance, file, since = ARGV[9], ARGV[10], ARGV[11]
local has = redis.call('HMGET', KEYS[2], 'owner', 'instance', 'file', 'since', 'host', 'address')
local seen = redis.call('ZSCORE', KEYS[1], ARGV[1])
local silent_s = seen and seconds - tonumber(seen)

local function refusal(word)
  return {word, has[5] or '', has[6] or '', seen or ''}
end

local function began_later()
  local theirs, ours = tonumber(has[4]) or 0, tonumber(since)
  return ours > theirs or (ours == theirs and instance > has[2])
end

if has[1] and has[1] ~= ARGV[2] then
  if silent_s and silent_s < tonumber(ARGV[3]) then return refusal('taken') end
elseif has[1] and has[2] and has[2] ~= instance then
  -- The same token, another process: the one before, or that of a state folder that was copied.
  if ARGV[8] == 'claim' then
    -- Who holds the file that the one before held knows that it has ended.
    local ended = file ~= '' and file == has[3]
    if not ended and silent_s and silent_s < tonumber(ARGV[7]) then return refusal('heard') end
  elseif ARGV[8] ~= 'replace' then
    if began_later() then return refusal('later') end
    if ARGV[8] ~= 'insist' then return refusal('insist') end
  end
end

-- No node was heard for half of the time a node may be silent: it was Redis that was away, or
-- could not be reached. The others get time to report before any of them counts as lost.
local newest = ARGV[6] == '1' and redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
if newest and seconds - tonumber(newest) > tonumber(ARGV[3]) / 2 then
  redis.call('SET', KEYS[4], seconds, 'EX', 2 * tonumber(ARGV[3]))
end

local new = redis.call('HSET', KEYS[2], 'owner', ARGV[2], 'instance', instance, 'file', file,
  unpack(ARGV, 12))
-- Days to live need no renewal every few seconds.
if new > 0 or seconds % 3600 < 15 then redis.call('EXPIRE', KEYS[2], ARGV[4]) end
redis.call('ZADD', KEYS[1], seconds, ARGV[1])

-- Whoever sees an overdue run has it for a while, so that one advance is enqueued, not one a node.
local overdue = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', seconds, 'LIMIT', 0, 16)
for _, run in ipairs(overdue) do
  redis.call('ZADD', KEYS[3], 'XX', seconds + tonumber(ARGV[5]), run)
end
return {'ok', now[1], now[2], overdue}
