-- Say that a node was stopped, and free its name; unless another process has it by now.
-- KEYS  node hash
-- ARGV  instance, ttl_s
local holder = redis.call('HGET', KEYS[1], 'instance')
if holder and holder ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'owner')
redis.call('HSET', KEYS[1], 'stopped', '1')
redis.call('EXPIRE', KEYS[1], ARGV[2]) -- in a Redis that lost its data, it had none
return 1
