-- Publish a batch of one run's measurements, each pair at most once, or refuse the whole batch.
-- KEYS  results stream, run hash, done bitmap, runs:open zset
-- ARGV  run id, probe, max entries, max bytes, ttl_s, then per measurement: bit, ok (1 or 0),
--       number of field strings, field strings
-- Gives {'ok', added, phase complete (1 or 0)}, {'gone'} or {'full'}.
if redis.call('EXISTS', KEYS[2]) == 0 then
  return {'gone', 0, 0}
end

local function full()
  return redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[3])
      or (redis.call('MEMORY', 'USAGE', KEYS[1]) or 0) >= tonumber(ARGV[4])
end

-- The first id that some known collector has not yet acknowledged; collectors acknowledge only
-- what they have fsynced. No collector: nothing may go.
local function first_uncollected()
  local first
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local name, last
    for i = 1, #group, 2 do
      if group[i] == 'name' then name = group[i + 1] end
      if group[i] == 'last-delivered-id' then last = group[i + 1] end
    end
    local pending = redis.call('XPENDING', KEYS[1], name)
    local id = pending[1] > 0 and pending[2] or last
    local ms, seq = string.match(id, '(%d+)-(%d+)')
    ms, seq = tonumber(ms), tonumber(seq)
    if not first or ms < first[1] or (ms == first[1] and seq < first[2]) then
      first = {ms, seq, id}
    end
  end
  return first and first[3]
end

if full() then
  local id = first_uncollected()
  if id then redis.call('XTRIM', KEYS[1], 'MINID', id) end
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
