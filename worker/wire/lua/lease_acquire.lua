-- Take both ends of a test and every shared link on its way, or nothing. Comes after lease.lua.
-- KEYS  table of who waits, near's wake list, what the token reserves, nodes zset, when Redis was
--       back; then the ends, near first and then the far ones in the order preferred, each as: lease,
--       budget, record, its links
-- ARGV  token, ttl_ms, bytes to reserve, near's name, waiting_ms (how long an entry of who waits
--       counts), budget_ttl_s, the record's field of its address; then each end as: name, bytes per
--       day ('' for no limit), number of links, the capacity of each
-- Returns {index of the far end taken, or 0; ms until something that is in the way may lapse, or -1;
--       what is so of near: 'free', 'held' or 'over' its budget; indices of far ends over theirs},
--       and where one is taken, as texts that may be empty: what near has spent today, far's address,
--       and in epoch seconds now, far's last heartbeat, that of any node, and when Redis was back
local WAITING, WAKE, RESERVED = KEYS[1], KEYS[2], KEYS[3]
local token, ttl, reserve, name = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local now, day = clock()
local soonest = -1

local function may_lapse(ms)
  if ms >= 0 and (soonest < 0 or ms < soonest) then soonest = ms end
end

local key, argument = 6, 8
local function next_end()
  local node = {lease = KEYS[key], budget = KEYS[key + 1], record = KEYS[key + 2]}
  node.name, node.limit = ARGV[argument], tonumber(ARGV[argument + 1])
  local count = tonumber(ARGV[argument + 2])
  key, argument, node.links = key + 3, argument + 3, {}
  for i = 0, count - 1 do node.links[KEYS[key + i]] = tonumber(ARGV[argument + i]) end
  key, argument = key + count, argument + count
  return node
end

local function is_free(lease)
  local left = redis.call('PTTL', lease)
  -- Longer than any lease: Redis' clock was set back since.
  if left > ttl then
    redis.call('PEXPIRE', lease, ttl)
    left = ttl
  end
  may_lapse(left)
  return left == -2
end

local full = {}
local function has_room(link, capacity)
  if full[link] == nil then
    redis.call('ZREMRANGEBYSCORE', link, '-inf', now)
    for _, other in ipairs(redis.call('ZRANGEBYSCORE', link, '(' .. now + ttl, '+inf')) do
      redis.call('ZADD', link, now + ttl, other)
    end
    full[link] = redis.call('ZCARD', link)
  end
  if full[link] < capacity then return true end
  local first = redis.call('ZRANGE', link, 0, 0, 'WITHSCORES')
  if first[2] then may_lapse(tonumber(first[2]) - now) end
  return false
end

local function fits(node)
  if not node.limit then return true end
  -- What is no count may be anything: nothing is left.
  local spent = string.match(redis.call('HGET', node.budget, day) or '0', '^-?%d+$')
  return spent and tonumber(spent) + reserve <= node.limit
end

-- A link that both ends name is on the way once, with the smaller capacity.
local function links_between(a, b)
  local capacities, links = {}, {}
  for link, capacity in pairs(a.links) do capacities[link] = capacity end
  for link, capacity in pairs(b.links) do
    capacities[link] = math.min(capacity, capacities[link] or capacity)
  end
  for link in pairs(capacities) do links[#links + 1] = link end
  return links, capacities
end

local function spend(budget)
  if type(redis.pcall('HINCRBY', budget, day, ARGV[3])) == 'table' then  -- an error: no count
    redis.call('HSET', budget, day, ARGV[3])
  end
  redis.call('EXPIRE', budget, ARGV[6])
  local counts = redis.call('HGETALL', budget)
  for i = 1, #counts, 2 do
    if (tonumber(counts[i]) or 0) < day - ARGV[6] / 86400 then
      redis.call('HDEL', budget, counts[i])
    end
  end
end

local near = next_end()

local function text(value) return type(value) == 'string' and value or '' end

local function taken(index, far, over)
  local newest = redis.call('ZREVRANGE', KEYS[4], 0, 0, 'WITHSCORES')
  return {
    index, -1, 'free', over,
    text(redis.call('HGET', near.budget, day)), text(redis.pcall('HGET', far.record, ARGV[7])),
    tostring(now / 1000), text(redis.call('ZSCORE', KEYS[4], far.name)), text(newest[2]),
    text(redis.pcall('GET', KEYS[5])),
  }
end

-- The answer to an earlier call with this token may have been lost on its way.
local again = redis.call('GET', near.lease) == token
if not fits(near) and not again then return {0, -1, 'over', {}} end
local near_free = again or is_free(near.lease)

local over, wanted, later, index = {}, {near.lease}, {}, 0
while key <= #KEYS do
  index = index + 1
  local far = next_end()
  local links, capacities = links_between(near, far)
  if again then
    if redis.call('GET', far.lease) == token then
      return taken(index, far, over)
    end
  elseif not fits(far) then
    over[#over + 1] = index
  elseif near_free then
    local open = is_free(far.lease)
    for link, capacity in pairs(capacities) do
      open = open and has_room(link, capacity)
    end
    if open then
      hold(token, ttl, {near.lease, far.lease}, links, now)
      spend(near.budget)
      spend(far.budget)
      redis.call('HSET', RESERVED, 'bytes', ARGV[3], 'day', day)
      redis.call('EXPIRE', RESERVED, ARGV[6])
      redis.call('HDEL', WAITING, name)
      redis.call('DEL', WAKE)
      return taken(index, far, over)
    end
    wanted[#wanted + 1] = far.lease
    for _, link in ipairs(links) do wanted[#wanted + 1] = link end
  else
    later[#later + 1] = far.lease
  end
end

-- While our own end is held, only its release helps.
redis.call('DEL', WAKE)
redis.call('HSET', WAITING, name, cmsgpack.pack({
  ends_ms = now + ARGV[5], lease = near.lease, wake = WAKE,
  wanted = listed(wanted), later = listed(later),
}))
redis.call('PEXPIRE', WAITING, ARGV[5])
return {0, soonest, near_free and 'free' or 'held', over}
