-- Wants a stream to end, and with 'erase' to be gone after that. A finished one that
-- nobody reads is gone at once.
-- KEYS: stream, log, lease, readers.  ARGV: 1 to erase, ms that an erased one stays.
-- Answers: status ('' where the stream is gone) and its owner ('' for none).
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {'', ''} end
if status == 'running' then redis.pcall('HSET', KEYS[1], 'cancel', 1) end
if ARGV[1] == '1' then
  redis.call('HDEL', KEYS[1], 'request')
  redis.call('HSET', KEYS[1], 'erased', 1)
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
  local time = redis.call('TIME')
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', time[1] * 1000)
  if status ~= 'running' and redis.call('ZCARD', KEYS[4]) == 0 then
    redis.call('DEL', KEYS[1], KEYS[2])
  end
end
return {status, redis.call('GET', KEYS[3]) or ''}
