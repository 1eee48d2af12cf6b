-- Room in the results stream; put before a script that adds entries.
-- Trims only what every known collector has fsynced, and only when the stream is full.

local function is_full(stream, max_entries, max_bytes)
  return redis.call('XLEN', stream) >= max_entries
      or (redis.call('MEMORY', 'USAGE', stream) or 0) >= max_bytes
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

-- The first id that some known collector still needs; nil when there is no collector.
local function first_needed(stream)
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
  return first
end

-- Gives whether entries may be added now.
local function has_room(stream, limits_key, max_entries, max_bytes)
  local limits = redis.call('HMGET', limits_key, 'stream_entries', 'stream_bytes')
  max_entries = tonumber(limits[1] or max_entries)
  max_bytes = tonumber(limits[2] or max_bytes)
  if not is_full(stream, max_entries, max_bytes) then return true end
  local id = redis.call('EXISTS', stream) == 1 and first_needed(stream)
  -- Whole nodes of the stream only, and not many of them: a script holds every locker.
  if id then redis.call('XTRIM', stream, 'MINID', '~', id, 'LIMIT', 1000) end
  return not is_full(stream, max_entries, max_bytes)
end
