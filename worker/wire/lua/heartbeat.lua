-- Claim or refresh a node's record, and look whether a run is overdue.
-- KEYS  nodes zset, node hash, runs:open zset, when Redis was back
-- ARGV  name, owner, instance, file, since, intent, alive_s, away_s, ttl_s, claim_s, settle_s, names of
--       six fields (owner, instance, file, since, host, address), then field/value pairs of the
--       record, those six among them. Intents: `claim` and `replace` of a process that starts, `beat`
--       and `insist` of one that has been registered.
-- Returns {'ok', seconds, microseconds, overdue run ids}, or what keeps this process from it, with
-- host and address of the other, and when that was last heard:
--   taken  another live node has the name
--   later  so has a process with the same token that began before this one, and lives
--   heard  to a claim: so had one that was heard so lately that it may live; try again
--   insist to a beat: one that began later has the name; who asks again shows that it lives
-- No run is looked at later than this from now.
local FARTHEST_S = 60

local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
local name, owner, instance, file, since, intent = unpack(ARGV, 1, 6)
local alive_s, away_s, ttl_s = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local claim_s, settle_s = tonumber(ARGV[10]), tonumber(ARGV[11])
local has = redis.call('HMGET', KEYS[2], unpack(ARGV, 12, 17))
local seen = redis.call('ZSCORE', KEYS[1], name)
local silent_s = seen and seconds - tonumber(seen)

local function refusal(word) return {word, has[5] or '', has[6] or '', seen or ''} end

local function began_later()
  local theirs, ours = tonumber(has[4]) or 0, tonumber(since)
  return ours > theirs or (ours == theirs and instance > has[2])
end

if has[1] and has[1] ~= owner then
  if silent_s and silent_s < alive_s then return refusal('taken') end
elseif has[1] and has[2] and has[2] ~= instance then
  -- The same token, another process: the one before, or that of a state folder that was copied.
  if intent == 'claim' then
    -- Who holds the file that the one before held knows that it has ended.
    local ended = file ~= '' and file == has[3]
    if not ended and silent_s and silent_s < settle_s then return refusal('heard') end
  elseif intent ~= 'replace' then
    if began_later() then return refusal('later') end
    if intent ~= 'insist' then return refusal('insist') end
  end
end

-- The clock was set back when this node was heard in the future: so was any that is dead, and what is
-- due later waits for as long. All that is brought to now.
local function clock_went_back()
  for key, after in pairs({[KEYS[1]] = seconds, [KEYS[3]] = seconds + FARTHEST_S}) do
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, string.format('(%.6f', after), '+inf')) do
      redis.call('ZADD', key, seconds, member)
    end
  end
end

-- No node was heard for long: it was Redis that was away, could not be reached, or had its clock set.
-- The others get time to report before any of them is lost.
local went_back = silent_s and silent_s < -1
if went_back then clock_went_back() end
local newest = (not silent_s or silent_s > away_s)
  and redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
if went_back or (newest and seconds - tonumber(newest) > away_s) then
  redis.call('SET', KEYS[4], seconds, 'EX', 2 * alive_s)
end

local new = redis.call('HSET', KEYS[2], unpack(ARGV, 18))
-- Days to live need no renewal every few seconds.
if new > 0 or seconds % 3600 < 15 then redis.call('EXPIRE', KEYS[2], ttl_s) end
redis.call('ZADD', KEYS[1], seconds, name)

-- The node that sees an overdue run has it for a while, so that one advance is enqueued, not one a node.
local overdue = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', seconds, 'LIMIT', 0, 16)
for _, run in ipairs(overdue) do
  redis.call('ZADD', KEYS[3], 'XX', seconds + claim_s, run)
end
return {'ok', now[1], now[2], overdue}
