-- Room for results in this Redis, which the lockers share; put before a script that adds entries, and
-- before it RESULTS, LIMITS, PACE, HOLDS: the keys; and NAMES, USUAL: of the limits `stream_entries`,
-- `stream_bytes`, `results_per_s`, `redis_memory_pct`, and what holds where none is set.
-- ARGV  booked (1 when this batch has waited for its turn), results in the batch; then the script's own
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

-- The limits, in the order of their names.
local function read_limits()
  local limits = redis.call('HMGET', LIMITS, unpack(NAMES))
  for i = 1, #limits do limits[i] = tonumber(limits[i]) or tonumber(USUAL[i]) end
  return limits
end

-- When the next batch is due, when memory was looked up, and whether it was short; `is_new` is set when
-- that was looked up now.
local function read_pace() return redis.call('HMGET', PACE, 'next', 'looked', 'tight') end

-- Whether the whole server uses more of its maxmemory than we may see; looked up once a second.
local function is_tight(pace, now, max_pct)
  local looked = tonumber(pace[2] or '')
  if looked and now - looked < 1 and now >= looked then return pace[3] == '1' end
  local info = redis.call('INFO', 'memory')
  local used = tonumber(string.match(info, '\nused_memory:(%d+)'))
  local limit = tonumber(string.match(info, '\nmaxmemory:(%d+)'))
  local over = limit > 0 and used > limit * max_pct / 100
  pace[2], pace[3], pace.is_new = string.format('%.6f', now), over and '1' or '0', true
  return over
end

-- What has no room: 'tight' and the percentage of memory that may be used, or 'full' and which of the
-- limits is reached; nil when there is room.
local function what_is_full(limits, pace, now)
  if is_tight(pace, now, limits[4]) then return 'tight', limits[4] end
  if redis.call('XLEN', RESULTS) >= limits[1] then return 'full', 1 end
  if (redis.call('MEMORY', 'USAGE', RESULTS) or 0) >= limits[2] then return 'full', 2 end
end

local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end

local function earlier(a, b)
  if not b then return a end
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return (a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)) and a or b
end

-- The first id that some known collector, or follower of a run, still needs; nil when there is no
-- collector. The hold of a follower that died has lapsed: its score is in the past.
local function first_needed(now)
  if redis.call('EXISTS', RESULTS) == 0 then return nil end
  local first
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', RESULTS)) do
    local name, last
    for i = 1, #group, 2 do
      if group[i] == 'name' then name = group[i + 1] end
      if group[i] == 'last-delivered-id' then last = group[i + 1] end
    end
    first = earlier(last, first)
    local pending = redis.call('XPENDING', RESULTS, name)
    if pending[1] > 0 then first = earlier(pending[2], first) end
  end
  if not first then return nil end
  for _, hold in ipairs(redis.call('ZRANGE', HOLDS, string.format('(%.3f', now), '+inf', 'BYSCORE')) do
    first = earlier(string.match(hold, '^%d+%-%d+') or '0-0', first)
  end
  return first
end

-- Returns 'ok'; or what has no room, when nothing may be added; or 'wait' and the milliseconds until the
-- turn that is now booked for this batch.
local function look_for_room()
  local booked, count = ARGV[1] == '1', tonumber(ARGV[2])
  local limits, pace, now = read_limits(), read_pace(), seconds_now()

  local full, of = what_is_full(limits, pace, now)
  if pace.is_new then redis.call('HSET', PACE, 'looked', pace[2], 'tight', pace[3]) end
  if full then
    local id = first_needed(now)
    -- Whole nodes of the stream only, and not many of them: a script holds every locker.
    if id then redis.call('XTRIM', RESULTS, 'MINID', '~', id, 'LIMIT', 1000) end
    full, of = what_is_full(limits, pace, now)
    if full then return full, of end
  end

  if booked then return 'ok', 0 end
  local turn = math.max(tonumber(pace[1] or '') or 0, now)
  if not (turn - now <= FARTHEST_S) then turn = now end  -- nor is `nan` a turn
  redis.call('HSET', PACE, 'next', string.format('%.6f', turn + count / limits[3]))
  if turn - now <= BURST_S then return 'ok', 0 end
  return 'wait', math.ceil((turn - now - BURST_S) * 1000)
end
