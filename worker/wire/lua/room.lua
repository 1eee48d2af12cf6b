-- Room for results in this Redis, which the lockers share; put before a script that adds entries.
-- KEYS  results stream, limits hash, pace hash, holds zset, then the script's own
-- ARGV  booked (1 when this batch has waited for its turn), results in the batch, then the defaults of
--       the limits: stream_entries, stream_bytes, results_per_s, redis_memory_pct; then the script's own
--
-- Trims only what every known collector has fsynced and no follower of a run still holds, and only
-- when there is no room.

-- A batch may be this many seconds early, so that a matrix fills in bursts.
local BURST_S = 0.2
-- A turn further away than this was booked on a clock that has been set back since.
local FARTHEST_S = 60

local function seconds_now()
  local now = redis.call('TIME')
  return tonumber(now[1]) + tonumber(now[2]) / 1e6
end

-- The limit that is reached, by its place among them; nil when there is room.
local function full_by(stream, max_entries, max_bytes)
  if redis.call('XLEN', stream) >= max_entries then return 1 end
  if (redis.call('MEMORY', 'USAGE', stream) or 0) >= max_bytes then return 2 end
end

-- Whether the whole server uses more of its maxmemory than we may see; looked up once a second.
local function is_tight(pace, looked, tight, now, max_pct)
  if looked and now - tonumber(looked) < 1 and now >= tonumber(looked) then return tight == '1' end
  local info = redis.call('INFO', 'memory')
  local used = tonumber(string.match(info, '\nused_memory:(%d+)'))
  local limit = tonumber(string.match(info, '\nmaxmemory:(%d+)'))
  local over = limit > 0 and used > limit * max_pct / 100
  redis.call('HSET', pace, 'looked', string.format('%.6f', now), 'tight', over and '1' or '0')
  return over
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

-- The first id that some known collector, or follower of a run, still needs; nil when there is no
-- collector. The hold of a follower that died has lapsed: its score is in the past.
local function first_needed(stream, holds, now)
  local first
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local name, last
    for i = 1, #group, 2 do
      if group[i] == 'name' then name = group[i + 1] end
      if group[i] == 'last-delivered-id' then last = group[i + 1] end
    end
    first = earlier(last, first)
    local pending = redis.call('XPENDING', stream, name)
    if pending[1] > 0 then first = earlier(pending[2], first) end
  end
  if not first then return nil end
  for _, hold in ipairs(redis.call('ZRANGE', holds, string.format('(%.3f', now), '+inf', 'BYSCORE')) do
    first = earlier(string.match(hold, '^%d+%-%d+') or '0-0', first)
  end
  return first
end

-- Gives 'ok'; or 'full' and the place of the limit that is reached, or 'tight' and the percentage that
-- may be used, when nothing may be added; or 'wait' and the milliseconds until the turn that is now
-- booked for this batch.
local function look_for_room()
  local stream, pace, booked, count = KEYS[1], KEYS[3], ARGV[1] == '1', tonumber(ARGV[2])
  local names = {'stream_entries', 'stream_bytes', 'results_per_s', 'redis_memory_pct'}
  local limits = redis.call('HMGET', KEYS[2], unpack(names))
  for i = 1, #names do limits[i] = tonumber(limits[i]) or tonumber(ARGV[2 + i]) end
  local state = redis.call('HMGET', pace, 'next', 'looked', 'tight')
  local now = seconds_now()

  local full = full_by(stream, limits[1], limits[2])
  local tight = is_tight(pace, state[2], state[3], now, limits[4])
  if full or tight then
    local id = redis.call('EXISTS', stream) == 1 and first_needed(stream, KEYS[4], now)
    -- Whole nodes of the stream only, and not many of them: a script holds every locker.
    if id then redis.call('XTRIM', stream, 'MINID', '~', id, 'LIMIT', 1000) end
    if tight then return 'tight', limits[4] end
    full = full_by(stream, limits[1], limits[2])
    if full then return 'full', full end
  end

  if booked then return 'ok', 0 end
  local turn = math.max(tonumber(state[1] or 0), now)
  if turn - now > FARTHEST_S then turn = now end
  redis.call('HSET', pace, 'next', string.format('%.6f', turn + count / limits[3]))
  if turn - now <= BURST_S then return 'ok', 0 end
  return 'wait', math.ceil((turn - now - BURST_S) * 1000)
end
