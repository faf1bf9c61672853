-- Brings slices into the pools and ends the caller's turn to fetch. charge.lua follows: whoever fetched a slice spends
-- from it before anybody else.
--
-- It is sent once per slice and never repeated: a slice whose credit has an unknown outcome is waste. A second credit
-- would be wrong even with an id, if FLUSHALL came between the two.
--
-- KEYS as in charge.lua
-- ARGV from the index in ARGV[6]: the replication id under which the slices were asked for, then per slice: number of
--      the pool, name of the counter, units, what the durable counter shows, maximum (-1 for none)
local longest = { h = 3600000, d = 86400000, m = 2678400000 }
local fetched = tonumber(ARGV[6])
local facts = redis.call('INFO', 'replication')
local _, place = string.find(facts, 'master_replid:', 1, true)
local memory = string.sub(facts, place + 1, place + 40)
if ARGV[fetched] == memory then
  for i = fetched + 1, #ARGV, 5 do
    local pool, counter = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
    if redis.call('HGET', pool, 'r') ~= memory then
      redis.call('DEL', pool)
    end
    local debited = redis.call('HGET', pool, 'd' .. counter)
    if not debited or tonumber(debited) < tonumber(ARGV[i + 3]) then
      debited = ARGV[i + 3]
    end
    redis.call('HSET', pool, 'r', memory, 'd' .. counter, debited)
    if ARGV[i + 4] ~= '-1' then
      redis.call('HSET', pool, 'm' .. counter, ARGV[i + 4])
    end
    redis.call('HINCRBY', pool, 'l' .. counter, ARGV[i + 2])
    redis.call('PEXPIRE', pool, 3456000000)
    if redis.call('HLEN', pool) > 32 then
      -- Windows that ended more than an hour ago. What is left there has no use any more.
      local ended = {}
      for _, field in ipairs(redis.call('HKEYS', pool)) do
        local window, start = string.match(field, '^[ldm]%l(%l)(%d+)$')
        if window and tonumber(start) + longest[window] + 3600000 < tonumber(ARGV[1]) and #ended < 1000 then
          ended[#ended + 1] = field
        end
      end
      if ended[1] then
        redis.call('HDEL', pool, unpack(ended))
      end
    end
  end
end
for run = 1, #KEYS - (ARGV[2] ~= '' and 1 or 0) do
  local fetcher = redis.call('HGET', KEYS[run], 'x')
  if fetcher and string.match(fetcher, '^%x+') == ARGV[5] then
    redis.call('HDEL', KEYS[run], 'x')
  end
end
