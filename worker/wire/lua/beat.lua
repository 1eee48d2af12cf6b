-- Refresh a node's record by what has changed in it; comes after heard.lua.
-- ARGV  msgpack: name, what the record's fields digest to, and of each field that changed its place in
--       FIELDS and its value
-- Returns what `heard` does, or 0 where the record is not what the node holds it to be: Redis lost it,
-- somebody changed it, another process has the name. The whole of it, to heartbeat.lua, comes next.
local told = cmsgpack.unpack(ARGV[1])
local name, key = told[1], NODE .. told[1]
local have = redis.call('HMGET', key, unpack(FIELDS))
for i = 1, #FIELDS do
  if not have[i] then return 0 end
end
if string.sub(redis.sha1hex(table.concat(have, '\n')), 1, DIGITS) ~= told[2] then return 0 end
local changed = {}
for i = 3, #told, 2 do
  have[told[i]] = told[i + 1]
  changed[#changed + 1], changed[#changed + 2] = FIELDS[told[i]], told[i + 1]
end
if #changed > 0 then redis.call('HSET', key, unpack(changed)) end
-- Days to live need no renewal every few seconds.
if seconds % 3600 < 15 then redis.call('EXPIRE', key, TTL_S) end
local _, silent_s = heard_at(name)
return heard(name, silent_s, {unpack(have, #FIELDS - #ROLES + 1)})
