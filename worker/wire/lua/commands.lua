-- Put before a script that carries out commands which come as an argument: all of them or, where Redis is
-- full, none, as a transaction would, but on conditions of the script.

-- This argument, if it is there, is msgpack of two lists: all words, each once; of each command the
-- numbers of its words.
local function carry_out(at)
  if not ARGV[at] then return end
  local words, commands = unpack(cmsgpack.unpack(ARGV[at]))
  for _, numbers in ipairs(commands) do
    local command = {}
    for i, number in ipairs(numbers) do command[i] = words[number] end
    redis.call(unpack(command))
  end
end

