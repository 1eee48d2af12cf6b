-- Give up what a token holds, settle its bytes, and wake who waits for it. Token only: what another
-- token holds by now is left alone. Comes after lease.lua.
-- KEYS  as lease_renew.lua, and last the table of who waits
-- ARGV  token, bytes spent ('' keeps the reservation), wake_ttl_ms, names of near and far, what the
--       keys of wake lists begin with
-- Returns {ends given up, 1 if far waits for its own test with near}
local token, spent, wake_ttl_ms, near, far, wake_prefix = unpack(ARGV)
local RESERVED, NEAR_LEASE, WAITING = KEYS[1], KEYS[2], KEYS[#KEYS]
local freed, ends = {}, 0
for i = 2, 3 do
  if redis.call('GET', KEYS[i]) == token then
    redis.call('DEL', KEYS[i])
    freed[#freed + 1], ends = KEYS[i], ends + 1
  end
end
for i = 6, #KEYS - 1 do
  if redis.call('ZREM', KEYS[i], token) == 1 then freed[#freed + 1] = KEYS[i] end
end

-- Settled once, however often this is called.
if spent ~= '' then settle(RESERVED, {KEYS[4], KEYS[5]}, spent) end
redis.call('DEL', RESERVED)

if #freed == 0 then return {0, 0} end
local now = clock()
local asked_back, woken, looked_through = 0, 0, 0
-- Only one of those woken can take what was given up, so a few are enough. So many bytes are looked
-- through in a third of a millisecond; of more that wait, some are looked at by lot, and the others
-- call again by themselves.
local MOST_WOKEN, MOST_LOOKED_AT, MOST_BYTES = 8, 128, 512 * 1024

local function wants_any(entry)
  for _, key in ipairs(freed) do
    if is_listed(entry.wanted, key) then return true end
  end
end

-- Nothing where something else lies there, by which a release must not fail.
local function read_entry(packed)
  local is_packed, entry = pcall(cmsgpack.unpack, packed)
  if not is_packed or type(entry) ~= 'table' or type(entry.ends_ms) ~= 'number' then return end
  for _, field in ipairs({'lease', 'wake', 'wanted', 'later'}) do
    if type(entry[field]) ~= 'string' then return end
  end
  -- Written and deleted below: it must be no key of others, such as a locker.
  return string.sub(entry.wake, 1, #wake_prefix) == wake_prefix and entry or nil
end

local function look_at(name)
  local packed = redis.call('HGET', WAITING, name)
  if not packed then return end
  looked_through = looked_through + #packed * #freed
  local entry = read_entry(packed)
  if not entry or entry.ends_ms < now then
    redis.call('HDEL', WAITING, name)
  -- One that takes part in a test by now is woken by the end of that.
  elseif wants_any(entry) and redis.call('EXISTS', entry.lease) == 0 then
    redis.call('HDEL', WAITING, name)
    redis.call('DEL', entry.wake)
    redis.call('RPUSH', entry.wake, token)
    redis.call('PEXPIRE', entry.wake, wake_ttl_ms)
    woken = woken + 1
    local wants_near = is_listed(entry.wanted, NEAR_LEASE) or is_listed(entry.later, NEAR_LEASE)
    if name == far and wants_near then asked_back = 1 end
  end
end

-- Far first: it may be waiting to test back.
look_at(far)
look_at(near)
local waiting = redis.call('HRANDFIELD', WAITING, MOST_LOOKED_AT)
for i = 1, #waiting do
  if woken >= MOST_WOKEN or looked_through >= MOST_BYTES then break end
  -- Where all of them are given, their order is always the same.
  look_at(waiting[(now + i) % #waiting + 1])
end
return {ends, asked_back}
