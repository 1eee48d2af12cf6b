-- The entries of a batch; put between room.lua and a script that adds results.
-- ARGV[3]  msgpack of the names of the entries' fields, and of each field its value: one that all
--          entries have, or a list. Most have most in common, and each argument of a call costs more
--          than what is in it.

-- Return a function that adds the entry of a number to the stream, and returns its id.
local function entries()
  local names, values = unpack(cmsgpack.unpack(ARGV[3]))
  local command, lists = {'XADD', RESULTS, '*'}, {}
  for field, name in ipairs(names) do
    command[2 * field + 2], command[2 * field + 3] = name, values[field]
    if type(values[field]) == 'table' then lists[2 * field + 3] = values[field] end
  end
  return function(number)
    for at, list in pairs(lists) do command[at] = list[number] end
    return redis.call(unpack(command))
  end
end
