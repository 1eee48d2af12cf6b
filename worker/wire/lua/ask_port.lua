-- Ask a node for its answering port, unless somebody has just done so. Comes after commands.lua.
-- KEYS  the port's key
-- ARGV  the secret, seconds until the request is no longer wanted, then commands
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then carry_out(3) end
return 0
