-- Takes organizations without parked holds off the list, except those that were listed a moment ago: what they are
-- about to park may not be there yet.
-- KEYS[1] the list; ARGV 1 for how many milliseconds; then organizations
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
for n = 2, #ARGV do
  local listed = redis.call('ZSCORE', KEYS[1], ARGV[n])
  if listed and tonumber(listed) + ARGV[1] < clock then
    redis.call('ZREM', KEYS[1], ARGV[n])
  end
end
return 1
