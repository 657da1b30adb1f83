-- Takes part in a session, or keeps it. KEYS: session, ids, order.  ARGV: subject, keep ms.
-- Answers 'new', 'known' or 'foreign'.
local subject = redis.call('HGET', KEYS[1], 'subject')
if subject and subject ~= ARGV[1] then return 'foreign' end
if not subject then redis.call('HSET', KEYS[1], 'subject', ARGV[1]) end
for at = 1, 3 do redis.call('PEXPIRE', KEYS[at], ARGV[2]) end
return subject and 'known' or 'new'
