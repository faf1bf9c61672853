-- Spends from the pools, charge by charge: of each charge every line, or none.
--
-- A pool is what an account has in Redis: `memory`, whose memory it is; `counters`, per name { units left of those that
-- were debited in the durable store, what the durable counter shows, last maximum seen or -1 }; `fetcher`, who fetches
-- slices now, and until when (`fetches_until`). A pool of another memory is void: what it says is left may be spent.
--
-- KEYS the pools, and the ids of charges
-- ARGV[1] the charges as JSON. Each has
--   now    the caller's clock
--   lines  per line, without nesting, which is read faster: number of the pool in KEYS, name of the counter, maximum or
--          -1, amount
--   id     where it has one: { number in KEYS, hash of what was asked, until when it is known, milliseconds to keep it }
--   turn   where the caller fetches slices itself: { its token, numbers of its pools, whose memory the slices that it
--          brings were asked for, per slice { pool, name, units, what the durable counter shows, maximum or -1 } }
-- Returns per charge {0, counters..} charged; {1, line, used} exceeded; {2} repeated; {3} conflict; {4, memory,
--   (line, left, debited, maximum)..} these lines need a slice (-1: not known); {5} another caller fetches.
local EXACT = 2 ^ 53
local KEEP_POOL = 40 * 86400000
local TURN = 1000
local LATE = 3600000
local LONGEST = { h = 3600000, d = 86400000, m = 31 * 86400000 }

-- Nothing is written before every charge is decided, so that a script that fails has done nothing.
local pools, changed, new_ids = {}, {}, {}

local function pool_at(n)
  local pool = pools[n]
  if not pool then
    local packed = redis.call('GET', KEYS[n])
    pool = packed and cmsgpack.unpack(packed)
    if not pool or pool.memory ~= memory then
      pool = { memory = memory, counters = {} }
    end
    pools[n] = pool
  end
  return pool
end

-- Brings slices into the pools and ends the caller's turn. What is charged next is the caller's own charge: whoever
-- fetched a slice spends from it before anybody else.
--
-- Credits are sent once and never again: if their outcome is unknown, the slices are waste. A second credit would be
-- wrong even with an id, if FLUSHALL came between the two.
local function credit(now, token, own, asked_of, slices)
  for _, slice in ipairs(asked_of == memory and slices or {}) do
    local n, name, units, debited, max = unpack(slice)
    local counters = pool_at(n).counters
    local counter = counters[name] or { 0, 0, -1 }
    -- Slices may come in another order than they were debited.
    debited = math.max(counter[2], debited)
    -- Beyond what this language counts exactly nothing is pooled: what was left counts as used.
    local left = debited <= EXACT and counter[1] + units or 0
    counters[name] = { left, debited, max >= 0 and max or counter[3] }
    for other in pairs(counters) do
      -- What is left of a window that ended long ago has no use any more.
      local window, start = string.match(other, '^%l(%l)(%d+)$')
      if other ~= name and start + LONGEST[window] + LATE < now then
        counters[other] = nil
      end
    end
    changed[n] = true
  end
  for _, n in ipairs(own) do
    if pool_at(n).fetcher == token then
      pool_at(n).fetcher = nil
      changed[n] = true
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
    local new = new_ids[KEYS[id[1]]]
    local known = new and new[2] .. new[3] or redis.call('GET', KEYS[id[1]])
    if known and charge.now < tonumber(string.sub(known, 65)) then
      return { string.sub(known, 1, 64) == id[2] and 2 or 3 }
    end
  end
  local lines, reply, counters = charge.lines, { 0 }, {}
  local short, short_of, unknown
  for n = 1, #lines / 4 do
    local pool, name, max, amount = unpack(lines, 4 * n - 3, 4 * n)
    local counter = pool_at(pool).counters[name]
    local left = counter and counter[1]
    local used = counter and counter[2] - left
    if used and max >= 0 and (used >= max or amount > max - used) then
      -- It is the first line without room only if every line with a maximum before it is known to have room.
      if not unknown then
        return { 1, n - 1, used }
      end
    elseif not used or left < amount then
      short, short_of = short or { 4, memory }, short_of or {}
      local entry = #short
      short[entry + 1] = n - 1
      short[entry + 2] = left or -1
      short[entry + 3] = counter and counter[2] or -1
      short[entry + 4] = counter and counter[3] or -1
      short_of[pool] = true
      unknown = unknown or max >= 0
    else
      reply[n + 1] = used + amount
      counters[n] = counter
    end
  end
  if short then
    return token and not take_turn(token, short_of) and { 5 } or short
  end
  for n, counter in ipairs(counters) do
    local amount = lines[4 * n]
    if amount > 0 then
      counter[1] = counter[1] - amount
      changed[lines[4 * n - 3]] = true
    end
  end
  if id then
    new_ids[KEYS[id[1]]] = id
  end
  return reply
end

local replies = {}
for n, charge in ipairs(cjson.decode(ARGV[1])) do
  if charge.turn then
    credit(charge.now, unpack(charge.turn))
  end
  replies[n] = spend(charge)
end
for n in pairs(changed) do
  redis.call('SET', KEYS[n], cmsgpack.pack(pools[n]), 'PX', KEEP_POOL)
end
for key, id in pairs(new_ids) do
  redis.call('SET', key, id[2] .. id[3], 'PX', id[4])
end
return replies
