-- Establishes since when buckets remember, as birth.lua does for one. Fails if this server takes no writes: the first
-- birth is written in any case.
-- KEYS the births
-- ARGV nothing, or 1 the instant since which they all remember, whatever was known
local time = redis.call('TIME')
local now = memory .. ':' .. string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for n, key in ipairs(KEYS) do
  if ARGV[1] then
    redis.call('SET', key, memory .. ':' .. ARGV[1])
  else
    local birth = redis.call('GET', key)
    local known = birth and string.sub(birth, 1, 40) == memory
    if n == 1 or not known then
      redis.call('SET', key, known and birth or now)
    end
  end
end
return 1
