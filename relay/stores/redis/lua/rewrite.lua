-- Writes a stream anew that Redis lost, in whole or in part, while its owner lives.
-- KEYS: stream, log, lease.
-- ARGV: epoch, node, lease ms, keep ms, status, ms since the chat was accepted, number of log
--       entries, for each entry the seq after it and its payload, then field and value pairs.
-- Answers 'ok', or 'fenced' where another node owns the stream.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return 'fenced' end
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
local kept = redis.call('HMGET', KEYS[1], 'cancel', 'erased')
redis.call('DEL', KEYS[1], KEYS[2])
local next, at = 0, 8
for _ = 1, tonumber(ARGV[7]) do
  next = tonumber(ARGV[at])
  redis.call('XADD', KEYS[2], next .. '-0', 'e', ARGV[1], 'r', ARGV[at + 1])
  at = at + 2
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'renewed', now, 'accepted', now - ARGV[6], 'epoch', ARGV[1], 'next', next, 'status', ARGV[5], unpack(ARGV, at))
if kept[1] then redis.call('HSET', KEYS[1], 'cancel', 1) end
if kept[2] then redis.call('HSET', KEYS[1], 'erased', 1) end
if ARGV[5] ~= 'running' then
  redis.call('HDEL', KEYS[1], 'request', 'accepted')
  redis.call('DEL', KEYS[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('SPUBLISH', KEYS[1], next)
return 'ok'
