-- Claim a node's name, or refresh its whole record; comes after heard.lua.
-- ARGV  name, intent, and the values of FIELDS. Intents: `claim` and `replace` of a process that
--       starts, `beat` and `insist` of one that has been registered.
-- Returns what `heard` does, or what keeps this process from it, with host and address of the other,
-- and when that was last heard:
--   taken  another live node has the name
--   later  so has a process with the same token that began before this one, and lives
--   heard  to a claim: so had one that was heard so lately that it may live; try again
--   insist to a beat: one that began later has the name; who asks again shows that it lives
local name, intent, key = ARGV[1], ARGV[2], NODE .. ARGV[1]
local ours, pairs_of = {}, {}
for i, field in ipairs(FIELDS) do
  ours[field] = ARGV[i + 2]
  pairs_of[2 * i - 1], pairs_of[2 * i] = field, ARGV[i + 2]
end
local owner, instance, file, since = ours[HOLDER[1]], ours[HOLDER[2]], ours[HOLDER[3]], ours[HOLDER[4]]
local has = redis.call('HMGET', key, unpack(HOLDER))
local seen, silent_s = heard_at(name)

local function refusal(word) return {word, has[5] or '', has[6] or '', seen or ''} end

local function began_later()
  local theirs, mine = tonumber(has[4]) or 0, tonumber(since)
  return mine > theirs or (mine == theirs and instance > has[2])
end

if has[1] and has[1] ~= owner then
  if silent_s and silent_s < ALIVE_S then return refusal('taken') end
elseif has[1] and has[2] and has[2] ~= instance then
  -- The same token, another process: the one before, or that of a state folder that was copied.
  if intent == 'claim' then
    -- Who holds the file that the one before held knows that it has ended.
    local ended = file ~= '' and file == has[3]
    if not ended and silent_s and silent_s < SETTLE_S then return refusal('heard') end
  elseif intent ~= 'replace' then
    if began_later() then return refusal('later') end
    if intent ~= 'insist' then return refusal('insist') end
  end
end

redis.call('HSET', key, unpack(pairs_of))
redis.call('EXPIRE', key, TTL_S)
return heard(name, silent_s, {unpack(ARGV, #ARGV - #ROLES + 1)})
