-- Whose memory this is: the server's replication id. A restart (also one that loads a dump or an append-only file), the
-- promotion of a replica and the import of a slot bring another one. What was written under another id may lack what
-- was written after it.
--
-- Only the server itself can say it, at the very moment: neither a connection nor a client's word outlives a promotion
-- that the client does not notice. The text is searched without patterns, which is faster, and `master_replid2:` does
-- not match.
local info = redis.call('INFO', 'replication')
local _, found = string.find(info, 'master_replid:', 1, true)
local memory = string.sub(info, found + 1, found + 40)
