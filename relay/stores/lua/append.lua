-- Appends a batch of records if the writer still owns the stream and nothing is missing
-- before it. A call that timed out may have run: it is told apart as a duplicate.
-- KEYS: stream, log, lease.
-- ARGV: epoch, first seq, count, payload, keep ms, status after it, channel.
local held = redis.call('HMGET', KEYS[1], 'epoch', 'next')
if not held[1] then return 'missing' end
if held[1] ~= ARGV[1] then return 'fenced' end
local next, first, count = tonumber(held[2]), tonumber(ARGV[2]), tonumber(ARGV[3])
if first + count <= next then return 'duplicate' end
if first ~= next then return 'gap' end
redis.call('XADD', KEYS[2], (first + count) .. '-0', 'r', ARGV[4])
redis.call('HSET', KEYS[1], 'next', first + count, 'status', ARGV[6])
if ARGV[6] ~= 'running' then
  redis.call('HDEL', KEYS[1], 'request', 'attempts')
  redis.call('DEL', KEYS[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('SPUBLISH', ARGV[7], first + count)
return 'ok'
