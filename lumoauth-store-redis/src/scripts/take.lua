-- Counts one request in a window, unless the window is full.
-- KEYS[1] the counter of one source in one window
-- ARGV    1 how many are admitted; 2 milliseconds to keep the counter
-- Returns how many are admitted so far, or -1 if this one is not.
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if used >= tonumber(ARGV[1]) then
  return -1
end
used = redis.call('INCR', KEYS[1])
if used == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return used
