-- What is left in a pool.
-- KEYS[1] the pool; ARGV the names of counters
-- Returns the units of each, or nothing if the pool is void.
local packed = redis.call('GET', KEYS[1])
local pool = packed and cmsgpack.unpack(packed)
if not pool or pool.memory ~= memory then
  return {}
end
local left = {}
for n, name in ipairs(ARGV) do
  local counter = pool.counters[name]
  left[n] = counter and counter[1] or 0
end
return left
