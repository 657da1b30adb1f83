-- Takes a running stream that nobody owns; the epoch rises, so that the former owner's
-- appends are refused. A lease of the node itself, which does not write the stream, is one
-- whose taking was not answered.
-- KEYS: stream, lease.  ARGV: node, lease ms.
-- Answers the new epoch, or 0 where the stream is owned, ended or gone; the ms since the
-- former owner last renewed; and those since the chat was accepted, by the one clock that all
-- nodes share: where its owner, of an earlier version, noted no time, since it last renewed.
if redis.call('HGET', KEYS[1], 'status') ~= 'running' then return {0, 0, 0} end
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return {0, 0, 0} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'renewed', 'accepted')
local renewed = tonumber(held[1] or now)
local accepted = tonumber(held[2] or renewed)
if not held[2] then redis.pcall('HSET', KEYS[1], 'accepted', renewed) end
return {redis.call('HINCRBY', KEYS[1], 'epoch', 1), now - renewed, math.max(0, now - accepted)}
