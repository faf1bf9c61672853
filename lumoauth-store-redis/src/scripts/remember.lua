-- Remembers a single-use value. Stands behind birth.lua, which says when this bucket was `born`, whether that was `known`,
-- and what its `clock` shows.
-- KEYS 1 the bucket's birth; 2 the mark
-- ARGV 1 the value's age in milliseconds; 2 milliseconds to keep the mark, or 0 if the value has ended
-- Returns -1 replay, -2 too old, -3 too old for a bucket that begins to remember with this call, as every value is;
-- else it is the first, and the answer is how many milliseconds this memory is older than the value was when the call was
-- made, had the call taken no time.
if ARGV[2] == '0' then
  return -2
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return -1
end
local older = clock - born - tonumber(ARGV[1])
if older <= 0 and not known then
  return -3
elseif older < 0 then
  return -2
end
redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
return older
