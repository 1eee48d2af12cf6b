-- Return a job's record, unless it is more than a job of ours can be: it is read whole.
-- KEYS  the job
-- ARGV  most fields, most bytes
-- Returns fields and values one after another, nothing when there is no such job, or why not as text.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return {} end
if kind ~= 'hash' then return 'the record is a ' .. kind .. ', not a hash' end
local fields = redis.call('HLEN', KEYS[1])
if fields > tonumber(ARGV[1]) then return 'the record has ' .. fields .. ' fields' end
local bytes = redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0)
if bytes > tonumber(ARGV[2]) then return 'the record has ' .. bytes .. ' bytes' end
return redis.call('HGETALL', KEYS[1])
