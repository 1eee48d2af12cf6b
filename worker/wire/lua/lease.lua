-- What the scripts on leases share; put before each of them. No key is built here: all come as KEYS,
-- or from an entry of the table of who waits, where lease_acquire.lua has left them.
--
-- Of a node, its lease (the token that holds it, PX) and its budget (a hash: UTC day → bytes that
-- tests cost it). Of a shared link, a zset: token → until when it is on the link. Of a token, what it
-- has reserved: a hash of `bytes` and of the `day` in whose budgets they are counted.
--
-- The table of who waits is a hash: node → msgpack of
--   ends_ms  the entry counts until then
--   lease    key of the node's own lease
--   wake     key of its list: who pushes wakes it
--   wanted   keys whose release lets it try again, as `listed` makes of them
--   later    keys of leases that it will want once its own is free, likewise

-- What a crash leaves of a link is gone after this long.
local LINK_TTL_S = 86400

local function clock()
  local time = redis.call('TIME')
  local seconds = tonumber(time[1])
  return seconds * 1000 + math.floor(tonumber(time[2]) / 1000), math.floor(seconds / 86400)
end

-- One text: of many entries of many keys, a table would take longer to read than we may hold Redis.
local function listed(keys) return ' ' .. table.concat(keys, ' ') .. ' ' end
local function is_listed(list, key) return string.find(list, ' ' .. key .. ' ', 1, true) ~= nil end

local function hold(token, ttl_ms, leases, links, now)
  for _, key in ipairs(leases) do redis.call('SET', key, token, 'PX', ttl_ms) end
  for _, key in ipairs(links) do
    redis.call('ZADD', key, now + ttl_ms, token)
    redis.call('EXPIRE', key, LINK_TTL_S)
  end
end

-- Count so many bytes in both budgets instead of what is reserved there.
local function settle(reserved, budgets, bytes)
  local so_far, day = unpack(redis.call('HMGET', reserved, 'bytes', 'day'))
  for _, budget in ipairs(budgets) do
    if day and redis.call('HEXISTS', budget, day) == 1 then
      redis.call('HINCRBY', budget, day, string.format('%.0f', bytes - so_far))
    end
  end
end
