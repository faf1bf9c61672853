-- Spends from the pools, charge by charge: of each charge every line, or none.
--
-- A pool is what an account has in Redis: `memory`, whose memory it is; `counters`, per name { units left of those that
-- were debited in the durable store, what the durable counter shows, last maximum seen or -1 }; `fetcher`, who fetches
-- slices now, and until when (`fetches_until`). A pool of another memory is void: what it says is left may be spent.
--
-- KEYS the pools, and the ids of charges
-- ARGV[1] the charges as JSON. Each has
--   now    the caller's clock
--   lines  per line { number of the pool in KEYS, name of the counter, maximum or -1, amount }
--   id     where it has one: { number in KEYS, hash of what was asked, until when it is known, milliseconds to keep it }
--   turn   where the caller fetches slices itself: { token, credits or nothing }. The credits are { whose memory the
--          slices were asked for, per slice { pool, name, units, what the durable counter shows, maximum or -1 } }
-- Returns per charge {0, counters..} charged; {1, line, used} exceeded; {2} repeated; {3} conflict; {4, memory,
--   (line, left, debited, maximum)..} these lines need a slice (-1: not known); {5} another caller fetches.
local KEEP_POOL = 40 * 86400000
local TURN = 1000
local LATE = 3600000
local LONGEST = { h = 3600000, d = 86400000, m = 31 * 86400000 }

local pools, changed = {}, {}

local function pool_at(n)
  if not pools[n] then
    local packed = redis.call('GET', KEYS[n])
    local pool = packed and cmsgpack.unpack(packed)
    if not pool or pool.memory ~= memory then
      pool = { memory = memory, counters = {} }
    end
    pools[n] = pool
  end
  return pools[n]
end

-- Brings slices into the pools and ends the caller's turn. What is charged next is the caller's own charge: whoever
-- fetched a slice spends from it before anybody else.
--
-- Credits are sent once and never again: if their outcome is unknown, the slices are waste. A second credit would be
-- wrong even with an id, if FLUSHALL came between the two.
local function credit(charge, token, credits)
  for _, slice in ipairs(credits[1] == memory and credits[2] or {}) do
    local n, name, units, debited, max = unpack(slice)
    local counters = pool_at(n).counters
    local counter = counters[name] or { 0, 0, -1 }
    counters[name] = { counter[1] + units, math.max(counter[2], debited), max >= 0 and max or counter[3] }
    for other in pairs(counters) do
      -- What is left of a window that ended long ago has no use any more.
      local window, start = string.match(other, '^%l(%l)(%d+)$')
      if other ~= name and start + LONGEST[window] + LATE < charge.now then
        counters[other] = nil
      end
    end
    changed[n] = true
  end
  for _, line in ipairs(charge.lines) do
    local pool = pool_at(line[1])
    if pool.fetcher == token then
      pool.fetcher = nil
      changed[line[1]] = true
    end
  end
end

-- Takes the turn to fetch for the pools that are short. One caller at a time has it: otherwise one might be refused for
-- want of units that another has debited and not yet brought here.
local function take_turn(token, short_of)
  local time = redis.call('TIME')
  local clock = time[1] * 1000 + math.floor(time[2] / 1000)
  for n in pairs(short_of) do
    local pool = pool_at(n)
    if pool.fetcher and pool.fetcher ~= token and clock < pool.fetches_until then
      return false
    end
  end
  for n in pairs(short_of) do
    local pool = pool_at(n)
    pool.fetcher, pool.fetches_until = token, clock + TURN
    changed[n] = true
  end
  return true
end

local function spend(charge)
  local id, token = charge.id, charge.turn and charge.turn[1]
  if id then
    local known = redis.call('GET', KEYS[id[1]])
    if known and charge.now < tonumber(string.sub(known, 65)) then
      return { string.sub(known, 1, 64) == id[2] and 2 or 3 }
    end
  end
  local reply, spent = { 0 }, {}
  local short, short_of, unknown = { 4, memory }, {}, false
  for n, line in ipairs(charge.lines) do
    local max, amount = line[3], line[4]
    local counter = pool_at(line[1]).counters[line[2]]
    local left = counter and counter[1]
    local used = counter and counter[2] - left
    if used and max >= 0 and (used >= max or amount > max - used) then
      -- It is the first line without room only if every line with a maximum before it is known to have room.
      if not unknown then
        return { 1, n - 1, used }
      end
    elseif not used or left < amount then
      local entry = #short
      short[entry + 1] = n - 1
      short[entry + 2] = left or -1
      short[entry + 3] = counter and counter[2] or -1
      short[entry + 4] = counter and counter[3] or -1
      short_of[line[1]] = true
      unknown = unknown or max >= 0
    else
      reply[n + 1] = used + amount
      if amount > 0 then
        spent[n] = counter
      end
    end
  end
  if short[3] then
    return token and not take_turn(token, short_of) and { 5 } or short
  end
  for n, counter in pairs(spent) do
    local line = charge.lines[n]
    counter[1] = counter[1] - line[4]
    changed[line[1]] = true
  end
  if id then
    redis.call('SET', KEYS[id[1]], id[2] .. id[3], 'PX', id[4])
  end
  return reply
end

local replies = {}
for n, charge in ipairs(cjson.decode(ARGV[1])) do
  if charge.turn and charge.turn[2] then
    credit(charge, unpack(charge.turn))
  end
  replies[n] = spend(charge)
end
for n in pairs(changed) do
  redis.call('SET', KEYS[n], cmsgpack.pack(pools[n]), 'PX', KEEP_POOL)
end
return replies
