-- The holds under some ids, each as charge.lua stores it. What is held in another memory is void.
-- KEYS  the records, and behind them, where there is one, the index that named them
-- ARGV  for each record its name in the index
-- Returns per record its text, or an empty one. Names in the index whose record is gone, or void, go too.
local texts = {}
for n = 1, ARGV[1] and #ARGV or #KEYS do
  local text = redis.call('GET', KEYS[n])
  local of = text and string.match(text, '^%d+:(%x+):', 65)
  if of == memory then
    texts[n] = text
  else
    texts[n] = ''
    if ARGV[n] then
      redis.call('ZREM', KEYS[#KEYS], ARGV[n])
    end
  end
end
return texts
