-- Lets a session be kept for its window only, unless a stream of it runs.
-- KEYS: session, ids, order, running.  ARGV: keep ms.
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', time[1] * 1000 + math.floor(time[2] / 1000))
if redis.call('ZCARD', KEYS[4]) > 0 then return 0 end
for at = 1, 3 do redis.call('PEXPIRE', KEYS[at], ARGV[1]) end
return 1
