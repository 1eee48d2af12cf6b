-- Enqueue a few jobs together with what is noted of them. Comes after commands.lua.
-- ARGV  the commands, as commands.lua takes them
-- Returns 'ok'
carry_out(1)
return 'ok'
