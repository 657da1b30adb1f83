-- Makes a stream's hash and the owner's lease. Asked twice it answers twice the same.
-- KEYS: stream, lease.  ARGV: node, lease ms, keep ms, then field and value pairs.
-- Answers 'ok', or 'taken' where another node has taken the stream over since.
if redis.call('EXISTS', KEYS[1]) == 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[1], 'renewed', now, 'accepted', now, 'epoch', 1, 'next', 0, 'status', 'running', unpack(ARGV, 4))
elseif redis.call('HGET', KEYS[1], 'epoch') ~= '1' then
  return 'taken'
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 'ok'
