-- Takes part in a session, or keeps it. KEYS: session, ids, order.  ARGV: subject, keep ms.
-- Answers 'new', 'known' or 'foreign'.
local subject = redis.call('HGET', KEYS[1], 'subject')
if subject and subject ~= ARGV[1] then return 'foreign' end
if not subject then redis.call('HSET', KEYS[1], 'subject', ARGV[1]) end
for at = 1, 3 do -- what a stream of the session needs is not cut short
  if redis.call('PTTL', KEYS[at]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[at], ARGV[2]) end
end
return subject and 'known' or 'new'
