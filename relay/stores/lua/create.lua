-- Makes a stream's hash and the owner's lease, unless the name is taken.
-- KEYS: stream, lease.  ARGV: node, lease ms, keep ms, then field and value pairs.
if redis.call('EXISTS', KEYS[1]) == 1 then return 'taken' end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'renewed', time[1] * 1000, 'epoch', 1, 'next', 0, 'status', 'running', unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 'ok'
