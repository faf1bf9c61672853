-- Ends the caller's turn to fetch slices, of which it got none.
-- KEYS the pools; ARGV[1] the caller's token
for run = 1, #KEYS do
  local fetcher = redis.call('HGET', KEYS[run], 'x')
  if fetcher and string.match(fetcher, '^%x+') == ARGV[1] then
    redis.call('HDEL', KEYS[run], 'x')
  end
end
