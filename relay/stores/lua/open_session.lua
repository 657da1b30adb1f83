-- Takes part in a session. KEYS: session, ids.  ARGV: subject, keep ms.
-- Answers 'new', 'known' or 'foreign'.
local subject = redis.call('HGET', KEYS[1], 'subject')
if subject and subject ~= ARGV[1] then return 'foreign' end
redis.call('HSET', KEYS[1], 'subject', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return subject and 'known' or 'new'
