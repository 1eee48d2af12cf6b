-- Publish a batch of one run's measurements, each pair at most once, or refuse the whole batch.
-- Comes after room.lua and entries.lua, whose arguments are the first.
-- KEYS[1]  run hash, done bitmap, runs:open zset
-- ARGV[4]  run id, ttl_s, the names of the run's fields (its newest result; of the probe: all pairs,
--          those in the stream, those that are ok), then msgpack of two lists: of each entry its bit,
--          and whether it is ok (1 or 0)
-- Returns {'ok', added, phase complete (1 or 0)}, {'gone', 0, 0}, {'full', 0, 0}, {'tight', 0, 0} or
-- {'wait', milliseconds, 0}.
-- Three round trips of a long way.
local CARRIED_ON_S = 5

local NEWEST, PAIRS, DONE, OK = unpack(ARGV, 6, 9)
local pairs_in_all, done, ok = unpack(redis.call('HMGET', KEYS[1], PAIRS, DONE, OK))
if not pairs_in_all then return {'gone', 0, 0} end

local room, wait_ms = look_for_room()
if room ~= 'ok' then return {room, wait_ms, 0} end

local add_entry = entries()
local bits, are_ok = unpack(cmsgpack.unpack(ARGV[10]))
local added, good, newest = 0, 0, nil
for i, bit in ipairs(bits) do
  if redis.call('SETBIT', KEYS[2], bit, 1) == 0 then
    newest = add_entry(i)
    added, good = added + 1, good + are_ok[i]
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[5])
local complete = 0
if added > 0 then
  done = (tonumber(done or '') or 0) + added
  -- Readers of the run go as far as the newest: times are of a clock that may be set.
  redis.call('HSET', KEYS[1], NEWEST, newest, DONE, done, OK, (tonumber(ok or '') or 0) + good)
  if done == tonumber(pairs_in_all) then
    complete = 1
    -- Should the publisher die before it carries the run on, a heartbeat sees this.
    redis.call('ZADD', KEYS[3], 'XX', seconds_now() + CARRIED_ON_S, ARGV[4])
  end
end
return {'ok', added, complete}
