-- Enqueue a few jobs together with what is noted of them. Comes after commands.lua.
-- ARGV  the commands
-- Returns 'ok'
carry_out(1)
return 'ok'
