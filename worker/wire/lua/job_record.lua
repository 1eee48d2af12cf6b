-- Return a job's record, unless it is more than a job of ours can be: it is read whole.
-- KEYS  the job, or RQ's list of what is taken from a queue
-- ARGV  most fields, most bytes; of such a list, what stands before the id in a job's key
-- Returns fields and values one after another, nothing when there is no such job, or why not as text;
-- of a list, the id that was taken last with that of it, or nothing.
local function record_of(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return {} end
  if kind ~= 'hash' then return 'the record is a ' .. kind .. ', not a hash' end
  local fields = redis.call('HLEN', key)
  if fields > tonumber(ARGV[1]) then return 'the record has ' .. fields .. ' fields' end
  local bytes = redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0)
  if bytes > tonumber(ARGV[2]) then return 'the record has ' .. bytes .. ' bytes' end
  return redis.call('HGETALL', key)
end

if not ARGV[3] then return record_of(KEYS[1]) end
local id = redis.call('LRANGE', KEYS[1], -1, -1)[1]
return id and {id, record_of(ARGV[3] .. id)} or {}
