-- Establishes since when buckets remember, as birth.lua does for one. Fails if this server takes no writes: the first
-- birth is written in any case.
-- KEYS the births
-- ARGV nothing, or a birth for each key: those that are still this one become 0, which is before anything
-- Returns the births.
local time = redis.call('TIME')
local now = memory .. ':' .. string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local births = {}
for n, key in ipairs(KEYS) do
  local birth = redis.call('GET', key)
  local known = birth and string.sub(birth, 1, 40) == memory
  births[n] = known and birth or now
  -- A memory that was lost since then is another one, of which nobody has said anything.
  if known and birth == ARGV[n] then
    births[n] = memory .. ':0'
  end
  if n == 1 or births[n] ~= birth then
    redis.call('SET', key, births[n])
  end
end
return births
