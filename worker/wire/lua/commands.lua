-- Put before a script that carries out commands which come as arguments: all of them or, where Redis is
-- full, none, as a transaction would, but on conditions of the script.

-- From this argument on: of each command the number of its words, then its words.
local function carry_out(at)
  while at <= #ARGV do
    local size = tonumber(ARGV[at])
    redis.call(unpack(ARGV, at + 1, at + size))
    at = at + 1 + size
  end
end

