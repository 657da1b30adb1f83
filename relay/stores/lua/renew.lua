-- Renews the owner's lease and tells it what others want of the stream.
-- KEYS: stream, log, lease, readers.  ARGV: epoch, node, lease ms, keep ms, attempts ('' to leave).
-- Answers: verdict, cancel wanted (0 or 1), readers elsewhere.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then return {'missing', 0, 0} end
if epoch ~= ARGV[1] then return {'fenced', 0, 0} end
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'attempts', ARGV[5]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'renewed', now)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
return {'ok', redis.call('HEXISTS', KEYS[1], 'cancel'), redis.call('ZCARD', KEYS[4])}
