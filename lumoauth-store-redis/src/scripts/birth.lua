-- Establishes since when a bucket remembers. KEYS[1] is the bucket's birth: a replication id and an instant.
--
-- Another server's memory may lack marks, and FLUSHALL takes the birth away with the marks: then the birth is now.
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local birth = redis.call('GET', KEYS[1])
local born
local known = birth and string.sub(birth, 1, 40) == memory
if known then
  born = tonumber(string.sub(birth, 42))
else
  born = clock
  redis.call('SET', KEYS[1], memory .. ':' .. string.format('%.0f', clock))
end
