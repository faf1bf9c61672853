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
--   hold   where it is held: { state letter, when that ends, its state, all else of it, its name, numbers in KEYS of the
--          index of its maker and of the parked }
--   ending where it is the end of a hold instead: { what each line gives back, and where it has an id: letters of the
--          states that it may end, letter of the state that it leads to, when that ends or 0 for as before, that state,
--          its name, numbers in KEYS of the record, of the index of its maker and of the parked }
--   turn   where the caller fetches slices itself: { its token, numbers of its pools, whose memory the slices that it
--          brings were asked for, per slice { pool, name, units, what the durable counter shows, maximum or -1 } }
-- Returns per charge {0, counters..} charged; {1, line, used} exceeded; {2} repeated; {3} conflict; {4, memory,
--   (line, left, debited, maximum)..} these lines need a slice (-1: not known); {5} another caller fetches; {6, state}
--   the hold stays; {7} no such hold; {8, letter it had, counters..} the hold has ended.
--
-- A record under an id is the hash (64 digits), until when it is known, and if it is held
-- `:memory:letter:ends:state\nrest`. Letters: h held, p parked, e ended; of a caller they are H and P when the time is over.
-- What is held counts in one memory only: an older record may have ended since, and what it freed may be spent.
local EXACT = 2 ^ 53
local KEEP_POOL = 40 * 86400000
local TURN = 1000
local LATE = 3600000
local LATE_ID = 600000
local LONGEST = { h = 3600000, d = 86400000, m = 31 * 86400000 }

-- Nothing is written before every charge is decided, so that a script that fails has done nothing.
local pools, changed, records, after = {}, {}, {}, {}

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

local function record_at(key)
  local new = records[key]
  if new then
    return new[1]
  end
  return redis.call('GET', key)
end

-- What is known under an id: the hash, and of a hold { letter, when it ends, its state, all else, until when it is
-- known }.
local function known_at(key, now)
  local record = record_at(key)
  if not record then
    return
  end
  local keep_until = string.match(record, '^%d+', 65)
  local of, letter, ends, state, rest = string.match(record, '^:(%x+):(%l):(%d+):([^\n]*)\n(.*)$', 65 + #keep_until)
  local is_parked = letter == 'p' and of == memory
  if now >= tonumber(keep_until) and not is_parked then
    return
  end
  return string.sub(record, 1, 64), of == memory and { letter, ends, state, rest, keep_until }
end

-- Stores a record; `keep` is how many milliseconds it is of use.
local function write_record(key, hash, keep_until, keep, hold)
  local record = hash .. keep_until
  if hold then
    local letter, ends, state, rest = unpack(hold)
    record = table.concat({ record, memory, letter, ends, state }, ':') .. '\n' .. rest
    -- What is parked is known until it is freed.
    keep = letter == 'p' and keep + KEEP_POOL or keep
  end
  records[key] = { record, string.format('%.0f', keep) }
end

-- Lists a hold where it is looked for.
local function list(now, letter, ends, name, index, parked, keep)
  after[#after + 1] = { now, letter, ends, name, KEYS[index], parked and KEYS[parked], keep }
end

local function spend(charge)
  local id, hold, ending, token = charge.id, charge.hold, charge.ending, charge.turn and charge.turn[1]
  local back, hash, old
  if id then
    hash = known_at(KEYS[id[1]], charge.now)
    if hash then
      return { hash == id[2] and 2 or 3 }
    end
  elseif ending then
    back = ending[1]
    if ending[2] then
      hash, old = known_at(KEYS[ending[7]], charge.now)
      if not old then
        return { 7 }
      end
      local letter = charge.now >= tonumber(old[2]) and string.upper(old[1]) or old[1]
      if not string.find(ending[2], letter, 1, true) then
        return { 6, old[3] }
      end
      old.letter = letter
    end
  end
  local lines, reply, counters = charge.lines, ending and { 8, old and old.letter or 'h' } or { 0 }, {}
  local first = #reply
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
      reply[n + first] = used + amount
      counters[n] = counter
    end
  end
  if short then
    return token and not take_turn(token, short_of) and { 5 } or short
  end
  for n, counter in ipairs(counters) do
    local amount, freed = lines[4 * n], back and back[n] or 0
    if amount > 0 or freed > 0 then
      counter[1] = counter[1] - amount
      if freed > 0 and counter[2] <= EXACT then
        counter[1] = math.min(counter[1] + freed, counter[2])
        reply[n + first] = counter[2] - counter[1]
      end
      changed[lines[4 * n - 3]] = true
    end
  end
  if id then
    write_record(KEYS[id[1]], id[2], id[3], id[4], hold)
    if hold then
      list(charge.now, hold[1], hold[2], hold[5], hold[6], hold[7], id[4])
    end
  elseif old then
    local keep = math.min(math.max(tonumber(old[5]) + LATE_ID - charge.now, 1), 10 * KEEP_POOL)
    local ends = ending[4] == '0' and old[2] or ending[4]
    write_record(KEYS[ending[7]], hash, old[5], keep, { ending[3], ends, ending[5], old[4] })
    list(charge.now, ending[3], ends, ending[6], ending[8], ending[9], keep)
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
for key, record in pairs(records) do
  redis.call('SET', key, record[1], 'PX', record[2])
end
for _, hold in ipairs(after) do
  local now, letter, ends, name, index, parked, keep = unpack(hold, 1, 7)
  local function add(key, score)
    redis.call('ZADD', key, score, name)
    local longest = string.format('%.0f', math.max(redis.call('PTTL', key), keep + KEEP_POOL))
    redis.call('PEXPIRE', key, longest)
  end
  if letter == 'e' then
    redis.call('ZREM', index, name)
  else
    add(index, letter == 'p' and '+inf' or ends)
    redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('%.0f', now - LATE_ID))
  end
  if letter == 'p' then
    add(parked, ends)
  elseif parked then
    redis.call('ZREM', parked, name)
  end
end
return replies
