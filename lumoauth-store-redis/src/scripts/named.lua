-- The names in an index whose score lies in a range, the lowest first.
-- KEYS[1] the index; ARGV 1 the least score; 2 the largest; 3 how many at most
-- Returns them, and how many names the index has in all.
return { redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3]), redis.call('ZCARD', KEYS[1]) }
