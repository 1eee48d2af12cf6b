-- Read a page of results in few bytes: names once, and what entries after each other have in common.
-- KEYS  results stream
-- ARGV  id before the first of them, most entries
-- Returns msgpack of a list of groups of entries with the same fields; of each group the ids, the names,
-- and of each name the value: one that all have, or a list.

local function of_fields(fields)
  local group = {{}, {}, {}}
  for at = 1, #fields / 2 do group[2][at], group[3][at] = fields[2 * at - 1], {} end
  return group
end

local function has_fields(group, fields)
  if #fields ~= 2 * #group[2] then return false end
  for at, name in ipairs(group[2]) do
    if fields[2 * at - 1] ~= name then return false end
  end
  return true
end

local function in_common(values)
  for _, value in ipairs(values) do
    if value ~= values[1] then return values end
  end
  return values[1]
end

local groups, group = {}, nil
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])) do
  local id, fields = entry[1], entry[2]
  if not (group and has_fields(group, fields)) then
    group = of_fields(fields)
    groups[#groups + 1] = group
  end
  local number = #group[1] + 1
  group[1][number] = id
  for at, values in ipairs(group[3]) do values[number] = fields[2 * at] end
end
for _, each in ipairs(groups) do
  for at, values in ipairs(each[3]) do each[3][at] = in_common(values) end
end
return cmsgpack.pack(groups)
