-- Hold on to both ends for longer. An end that lapsed and that nobody took is taken again; one that
-- another holds by now means that the lease is lost, and nothing is renewed.
-- What the test has cost so far is reserved where it is more than that was. Comes after lease.lua.
-- KEYS  what the token reserves, lease of near and of far, budget of near and of far, then the links
-- ARGV  token, ttl_ms, bytes that it has cost at least
-- Returns 1, or 0 when the lease is lost
local token, bytes, leases, links = ARGV[1], tonumber(ARGV[3]), {KEYS[2], KEYS[3]}, {}
for i = 6, #KEYS do links[#links + 1] = KEYS[i] end
for _, lease in ipairs(leases) do
  local held = redis.call('GET', lease)
  if held and held ~= token then return 0 end
end
hold(token, tonumber(ARGV[2]), leases, links, clock())
local reserved = redis.call('HGET', KEYS[1], 'bytes')
if reserved and bytes > tonumber(reserved) then
  settle(KEYS[1], {KEYS[4], KEYS[5]}, bytes)
  redis.call('HSET', KEYS[1], 'bytes', ARGV[3])
end
return 1
