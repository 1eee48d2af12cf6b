-- Say that a node was stopped, and free its name; unless another process has it by now.
-- KEYS  node hash
-- ARGV  instance, ttl_s, then the names of three fields: the instance, the owner, that it was stopped
local holder = redis.call('HGET', KEYS[1], ARGV[3])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[4])
redis.call('HSET', KEYS[1], ARGV[5], '1')
redis.call('EXPIRE', KEYS[1], ARGV[2]) -- in a Redis that lost its data, it had none
return 1
