-- Gives a stream up, so that another node takes it at once. Only its owner can.
-- KEYS: stream, lease.  ARGV: epoch, node.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
local time = redis.call('TIME')
redis.pcall('HSET', KEYS[1], 'renewed', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('SPUBLISH', KEYS[1], 'orphan')
return 1
