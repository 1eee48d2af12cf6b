-- Take both ends of a test and every shared link on its way, or nothing.
-- KEYS  lease prefix, wake prefix, budget prefix, waiting hash
-- ARGV  token, ttl_ms, bytes to reserve, waiting_ms (how long a registration counts), budget_ttl_s,
--       then the ends, near first and then the far ones in the order preferred, each as: name,
--       bytes per day ('' for no limit), number of links, then name and capacity of each link
-- Gives {index of the far end taken, or 0; ms until something that is in the way may lapse, or -1;
--       what is so of near: 'free', 'held' or 'over' its budget; indices of far ends over theirs}
local lease, wake, budget = KEYS[1], KEYS[2], KEYS[3]
local token, ttl, reserve = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local day = math.floor(tonumber(time[1]) / 86400)
local soonest = -1

local function may_lapse(ms)
  if ms >= 0 and (soonest < 0 or ms < soonest) then soonest = ms end
end

local at = 6
local function next_end()
  local found = {name = ARGV[at], limit = tonumber(ARGV[at + 1]), links = {}}
  local count = tonumber(ARGV[at + 2])
  for i = at + 3, at + 2 + 2 * count, 2 do
    found.links[ARGV[i]] = tonumber(ARGV[i + 1])
  end
  at = at + 3 + 2 * count
  return found
end

local function is_free(name)
  local left = redis.call('PTTL', lease .. name)
  -- Longer than any lease: Redis' clock was set back since.
  if left > ttl then
    redis.call('PEXPIRE', lease .. name, ttl)
    left = ttl
  end
  may_lapse(left)
  return left == -2
end

local full = {}
local function has_room(link, capacity)
  local key = lease .. 'link:' .. link
  if full[link] == nil then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    for _, other in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. now + ttl, '+inf')) do
      redis.call('ZADD', key, now + ttl, other)
    end
    full[link] = redis.call('ZCARD', key)
  end
  if full[link] < capacity then return true end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] then may_lapse(tonumber(first[2]) - now) end
  return false
end

local function fits(node)
  if not node.limit then return true end
  local spent = tonumber(redis.call('GET', budget .. node.name .. ':' .. day) or 0)
  return spent + reserve <= node.limit
end

-- A link that both ends name is on the way once, with the smaller capacity.
local function links_between(a, b)
  local links = {}
  for link, capacity in pairs(a.links) do links[link] = capacity end
  for link, capacity in pairs(b.links) do
    links[link] = math.min(capacity, links[link] or capacity)
  end
  return links
end

local near = next_end()
local held = redis.call('GET', lease .. near.name)
-- The answer to an earlier call with this token may have been lost on its way.
local again = held == token
if not fits(near) and not again then
  return {0, -1, 'over', {}}
end
local near_free = again or is_free(near.name)

local over, wanted, later, index = {}, {near.name}, {}, 0
while at <= #ARGV do
  index = index + 1
  local far = next_end()
  local links = links_between(near, far)
  if again then
    if redis.call('GET', lease .. far.name) == token then
      return {index, -1, 'free', over}
    end
  elseif not fits(far) then
    over[#over + 1] = index
  elseif near_free then
    local open = is_free(far.name)
    for link, capacity in pairs(links) do
      open = open and has_room(link, capacity)
    end
    if open then
      for _, node in ipairs({near, far}) do
        redis.call('SET', lease .. node.name, token, 'PX', ttl)
        redis.call('INCRBY', budget .. node.name .. ':' .. day, ARGV[3])
        redis.call('EXPIRE', budget .. node.name .. ':' .. day, ARGV[5])
      end
      for link in pairs(links) do
        redis.call('ZADD', lease .. 'link:' .. link, now + ttl, token)
        redis.call('EXPIRE', lease .. 'link:' .. link, ARGV[5])
      end
      redis.call('SET', budget .. 'reserved:' .. token, ARGV[3] .. ':' .. day, 'EX', ARGV[5])
      redis.call('HDEL', KEYS[4], near.name)
      redis.call('DEL', wake .. near.name)
      return {index, -1, 'free', over}
    end
    wanted[#wanted + 1] = far.name
    for link in pairs(links) do wanted[#wanted + 1] = 'link:' .. link end
  else
    later[#later + 1] = far.name
  end
end

-- Who releases a name before the bar wakes us: while our own end is held, only its release helps.
redis.call('DEL', wake .. near.name)
redis.call('HSET', KEYS[4], near.name, string.format('%.0f %s | %s ', now + ARGV[4],
    table.concat(wanted, ' '), table.concat(later, ' ')))
return {0, soonest, near_free and 'free' or 'held', over}
