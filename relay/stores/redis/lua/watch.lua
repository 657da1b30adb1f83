-- Says that a stream is read on a node, and tells the node how the stream does.
-- KEYS: stream, lease, readers.  ARGV: node, ms for which its word holds (0: it reads nothing).
-- Answers: status ('' where the stream is gone), seq after the last record, ms that the
-- lease still holds (0: nobody owns the stream).
local held = redis.call('HMGET', KEYS[1], 'status', 'next')
if not held[1] then return {'', 0, 0} end
local holds = tonumber(ARGV[2])
if holds > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.pcall('ZADD', KEYS[3], now + holds, ARGV[1])
  redis.call('PEXPIRE', KEYS[3], holds)
end
return {held[1], tonumber(held[2]), math.max(0, redis.call('PTTL', KEYS[2]))}
