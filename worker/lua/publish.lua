-- Publish a batch of one run's measurements, each pair at most once, or refuse the whole batch.
-- Comes after room.lua.
-- KEYS  results stream, run hash, done bitmap, runs:open zset, limits hash
-- ARGV  run id, probe, max entries, max bytes, ttl_s, then per measurement: bit, ok (1 or 0),
--       number of field strings, field strings
-- Gives {'ok', added, phase complete (1 or 0)}, {'gone', 0, 0} or {'full', 0, 0}.
if redis.call('EXISTS', KEYS[2]) == 0 then
  return {'gone', 0, 0}
end

if not has_room(KEYS[1], KEYS[5], ARGV[3], ARGV[4]) then
  return {'full', 0, 0}
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
  local pairs_ = redis.call('HMGET', KEYS[2], 'pairs:' .. ARGV[2], 'pairs')
  if done == tonumber(pairs_[1] or pairs_[2]) then
    complete = 1
    -- Should the publisher die before it enqueues the advance, the next heartbeat sees this.
    redis.call('ZADD', KEYS[4], 'XX', 0, ARGV[1])
  end
end
return {'ok', added, complete}
