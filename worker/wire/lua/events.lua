-- Add what has changed at a node since its last events, each change as an event of the stream.
-- Comes after room.lua, whose arguments are the first.
-- KEYS[1]  node hash, which keeps what the last event of each fact had, and when
-- ARGV[3]  least seconds between two events of a kind, wire version, time, node, how the names of the
--          fields begin of what that had and of when, then per fact: what, what the node itself
--          remembers (of a new node, or in a Redis that lost its data) behind a mark or nothing, what
--          is true
-- Returns {'ok', events added, facts that must wait}, {'full', 0, 0}, {'tight', 0, 0} or
-- {'wait', milliseconds, 0}.
local room, wait_ms = look_for_room()
if room ~= 'ok' then return {room, wait_ms, 0} end

local now, added, waiting = seconds_now(), 0, 0
-- Of a Redis that was emptied just now: the next heartbeat makes the record, this would make half.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'ok', 0, 1} end
for at = 9, #ARGV, 3 do
  local what, new = ARGV[at], ARGV[at + 2]
  local told_field, told_at_field = ARGV[7] .. what, ARGV[8] .. what
  local told = redis.call('HMGET', KEYS[1], told_field, told_at_field)
  local old = told[1] or (ARGV[at + 1] ~= '' and string.sub(ARGV[at + 1], 2))
  local age = now - (tonumber(told[2] or '') or 0)
  if not told[1] and (not old or old == new) then
    redis.call('HSET', KEYS[1], told_field, new)  -- a new node: nothing has changed
  elseif old ~= new and math.abs(age) < tonumber(ARGV[3]) then
    waiting = waiting + 1
  elseif old ~= new then
    redis.call('XADD', RESULTS, '*', 'v', ARGV[4], 'kind', 'event', 'time', ARGV[5], 'node', ARGV[6],
               'what', what, 'old', old, 'new', new)
    redis.call('HSET', KEYS[1], told_field, new, told_at_field, string.format('%.3f', now))
    added = added + 1
  end
end
return {'ok', added, waiting}
