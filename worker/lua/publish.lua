-- Publish a batch of one run's measurements, each pair at most once, or refuse the whole batch.
-- KEYS  results stream, run hash, done bitmap, runs:open zset, limits hash
-- ARGV  run id, probe, max entries, max bytes, ttl_s, then per measurement: bit, ok (1 or 0),
--       number of field strings, field strings
-- Gives {'ok', added, phase complete (1 or 0)}, {'gone', 0, 0} or {'full', 0, 0}.
if redis.call('EXISTS', KEYS[2]) == 0 then
  return {'gone', 0, 0}
end

local limits = redis.call('HMGET', KEYS[5], 'stream_entries', 'stream_bytes')
local max_entries = tonumber(limits[1] or ARGV[3])
local max_bytes = tonumber(limits[2] or ARGV[4])

local function full()
  return redis.call('XLEN', KEYS[1]) >= max_entries
      or (redis.call('MEMORY', 'USAGE', KEYS[1]) or 0) >= max_bytes
end

local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end

local function earlier(a, b)
  if not b then return a end
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  if a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq) then return a end
  return b
end

-- The first id that some known collector still needs. A collector acknowledges only what it has
-- fsynced, and may set its group back to what its file holds. No collector: nothing may go.
local function first_needed()
  local first
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local name, last
    for i = 1, #group, 2 do
      if group[i] == 'name' then name = group[i + 1] end
      if group[i] == 'last-delivered-id' then last = group[i + 1] end
    end
    first = earlier(last, first)
    local pending = redis.call('XPENDING', KEYS[1], name)
    if pending[1] > 0 then first = earlier(pending[2], first) end
  end
  return first
end

if full() then
  local id = redis.call('EXISTS', KEYS[1]) == 1 and first_needed()
  -- Whole nodes of the stream only, and not many of them: a script holds every locker.
  if id then redis.call('XTRIM', KEYS[1], 'MINID', '~', id, 'LIMIT', 1000) end
  if full() then return {'full', 0, 0} end
end

local added, ok, at = 0, 0, 6
while at <= #ARGV do
  local bit, good, size = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  if redis.call('SETBIT', KEYS[3], bit, 1) == 0 then
    redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 3, at + 2 + size))
    added, ok = added + 1, ok + good
  end
  at = at + 3 + size
end
redis.call('EXPIRE', KEYS[3], ARGV[5])
local complete = 0
if added > 0 then
  redis.call('HINCRBY', KEYS[2], 'ok:' .. ARGV[2], ok)
  local done = redis.call('HINCRBY', KEYS[2], 'done:' .. ARGV[2], added)
  if done == tonumber(redis.call('HGET', KEYS[2], 'pairs')) then
    complete = 1
    -- Should the publisher die before it enqueues the advance, the next heartbeat sees this.
    redis.call('ZADD', KEYS[4], 'XX', 0, ARGV[1])
  end
end
return {'ok', added, complete}
