-- Look up the addresses of nodes, in one command.
-- KEYS  node hashes
-- Gives an address for each; nil where there is none, or something else than a node's record.
local found = {}
for i, key in ipairs(KEYS) do
  local address = redis.pcall('HGET', key, 'address')
  found[i] = type(address) == 'string' and address
end
return found
