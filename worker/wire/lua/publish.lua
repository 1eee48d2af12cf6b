-- Publish a batch of one run's measurements, each pair at most once, or refuse the whole batch.
-- Comes after room.lua, whose keys and arguments are the first.
-- KEYS[5]  run hash, done bitmap, runs:open zset
-- ARGV[11]  run id, ttl_s, the names of the run's fields (its plan, its newest result; of the probe:
--          all pairs, those in the stream, those that are ok), then per measurement: bit, ok (1 or 0),
--          number of field strings, field strings
-- Returns {'ok', added, phase complete (1 or 0)}, {'gone', 0, 0}, {'full', 0, 0}, {'tight', 0, 0} or
-- {'wait', milliseconds, 0}.
local PLAN, NEWEST, PAIRS, DONE, OK = unpack(ARGV, 13, 17)
if redis.call('HEXISTS', KEYS[5], PLAN) == 0 then return {'gone', 0, 0} end

local room, wait_ms = look_for_room()
if room ~= 'ok' then return {room, wait_ms, 0} end

local added, ok, at, newest = 0, 0, 18, nil
while at <= #ARGV do
  local bit, good, size = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  if redis.call('SETBIT', KEYS[6], bit, 1) == 0 then
    newest = redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 3, at + 2 + size))
    added, ok = added + 1, ok + good
  end
  at = at + 3 + size
end
redis.call('EXPIRE', KEYS[6], ARGV[12])
local complete = 0
if added > 0 then
  -- Readers of the run go so far: times are of a clock that may be set.
  redis.call('HSET', KEYS[5], NEWEST, newest)
  redis.call('HINCRBY', KEYS[5], OK, ok)
  local done = redis.call('HINCRBY', KEYS[5], DONE, added)
  if done == tonumber(redis.call('HGET', KEYS[5], PAIRS)) then
    complete = 1
    -- Should the publisher die before it enqueues the advance, the next heartbeat sees this.
    redis.call('ZADD', KEYS[7], 'XX', 0, ARGV[11])
  end
end
return {'ok', added, complete}
