-- Takes a running stream that nobody owns; the epoch rises, so that the former owner's
-- appends are refused. A lease of the node itself, which does not write the stream, is one
-- whose taking was not answered.
-- KEYS: stream, lease.  ARGV: node, lease ms.
-- Answers the new epoch, or 0 where the stream is owned, ended or gone; and the ms since
-- the former owner last renewed.
if redis.call('HGET', KEYS[1], 'status') ~= 'running' then return {0, 0} end
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return {0, 0} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local renewed = tonumber(redis.call('HGET', KEYS[1], 'renewed') or now)
return {redis.call('HINCRBY', KEYS[1], 'epoch', 1), now - renewed}
