-- Look up what the records of nodes say of where they are, and when each was last heard, in one command.
-- KEYS  nodes zset, node hashes
-- ARGV  where the name begins in the key of a node, the field that has it all, the fields that do; of
--       these the last two: when the node's process began, that it was stopped
-- Returns the time in seconds and microseconds, when each node was last heard, and of each a text: a
-- line for each of the fields, an empty one for what is not there; without the last where that is
-- empty. False of a key that is of another type.
local begin, whole, since, stopped = tonumber(ARGV[1]), ARGV[2], ARGV[#ARGV - 1], ARGV[#ARGV]
local heard, texts = {}, {}
-- One by one: users of older rights have no ZMSCORE.
for i = 2, #KEYS do heard[i - 1] = redis.call('ZSCORE', KEYS[1], string.sub(KEYS[i], begin)) end
local now = redis.call('TIME')
for i = 2, #KEYS do
  local has = redis.pcall('HMGET', KEYS[i], whole, since, stopped)
  local text = has[1]
  if has.err then
    text = false
  -- An older ptzmesh leaves the field as it finds it, and began at another time.
  elseif not (text and has[2]) or has[3] ~= '' or string.sub(text, -#has[2] - 1) ~= '\n' .. has[2] then
    local values = redis.call('HMGET', KEYS[i], unpack(ARGV, 3))
    for j = 1, #values do values[j] = values[j] or '' end
    text = table.concat(values, '\n')
  end
  texts[i - 1] = text
end
return {now[1], now[2], heard, texts}
