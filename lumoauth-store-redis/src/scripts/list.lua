-- Notes that an organization is about to park something. It is listed with the present time of this server.
-- KEYS[1] the list; ARGV 1 the organization; 2 milliseconds to keep the list
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
