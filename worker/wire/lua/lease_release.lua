-- Give up what a token holds, settle its bytes, and wake who waits for it. Token only: what another
-- token holds by now is left alone.
-- KEYS  lease prefix, wake prefix, budget prefix, waiting hash
-- ARGV  token, near, far, bytes spent ('' keeps the reservation), wake_ttl_ms, then the links
-- Gives {ends given up, 1 if far waits for its own test with near}
local lease, wake, budget = KEYS[1], KEYS[2], KEYS[3]
local token, near, far = ARGV[1], ARGV[2], ARGV[3]
local freed, ends = {}, 0
for _, name in ipairs({near, far}) do
  if redis.call('GET', lease .. name) == token then
    redis.call('DEL', lease .. name)
    freed[#freed + 1], ends = name, ends + 1
  end
end
for i = 6, #ARGV do
  if redis.call('ZREM', lease .. 'link:' .. ARGV[i], token) == 1 then
    freed[#freed + 1] = 'link:' .. ARGV[i]
  end
end

-- Settled once, on the day it was reserved, however often this is called.
local reserved = redis.call('GET', budget .. 'reserved:' .. token)
if reserved then
  redis.call('DEL', budget .. 'reserved:' .. token)
  local bytes, day = string.match(reserved, '(%d+):(%d+)')
  if ARGV[4] ~= '' then
    for _, name in ipairs({near, far}) do
      local key = budget .. name .. ':' .. day
      if redis.call('EXISTS', key) == 1 then
        redis.call('INCRBY', key, string.format('%.0f', ARGV[4] - bytes))
      end
    end
  end
end

if #freed == 0 then return {0, 0} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function names(entry, name) return string.find(entry, ' ' .. name .. ' ', 1, true) end

local asked_back, woken = 0, 0
local function look_at(name, entry)
  if tonumber(string.match(entry, '%d+')) < now then
    redis.call('HDEL', KEYS[4], name)
    return
  end
  local wanted = string.match(entry, '^[^|]*')
  for _, what in ipairs(freed) do
    if names(wanted, what) then
      -- One that takes part in a test by now is woken by the end of that.
      if redis.call('EXISTS', lease .. name) == 1 then return end
      redis.call('HDEL', KEYS[4], name)
      redis.call('DEL', wake .. name)
      redis.call('RPUSH', wake .. name, what)
      redis.call('PEXPIRE', wake .. name, ARGV[5])
      woken = woken + 1
      if name == far and names(entry, near) then asked_back = 1 end
      return
    end
  end
end

-- Far first: it may be waiting to test back.
for _, name in ipairs({far, near}) do
  local entry = redis.call('HGET', KEYS[4], name)
  if entry then look_at(name, entry) end
end
-- Only one of those woken can take what was given up, so a few are enough. With very many that
-- wait, some are looked at by lot, and the others call again by themselves.
local most_looked_at, most_woken = 128, 8
local waiting
if redis.call('HLEN', KEYS[4]) <= most_looked_at then
  waiting = redis.call('HGETALL', KEYS[4])
else
  waiting = redis.call('HRANDFIELD', KEYS[4], most_looked_at, 'WITHVALUES')
end
for i = 1, #waiting, 2 do
  if woken >= most_woken then break end
  look_at(waiting[i], waiting[i + 1])
end
return {ends, asked_back}
