-- Renews the owner's lease and tells it what others want of the stream. A Redis that is
-- full still renews: what must not fail needs no memory.
-- KEYS: stream, log, lease, readers.
-- ARGV: epoch, node, lease ms, keep ms, ms that an erased one stays, seq after the last record
--       acknowledged, then field and value pairs of what the owner notes beside its records.
-- Answers: verdict, cancel wanted (0 or 1), erased (0 or 1), readers elsewhere.
local held = redis.call('HMGET', KEYS[1], 'epoch', 'next', 'cancel', 'erased')
if not held[1] then return {'missing', 0, 0, 0} end
local epoch, acknowledged = tonumber(held[1]), tonumber(ARGV[6])
if epoch > tonumber(ARGV[1]) then return {'fenced', 0, 0, 0} end
if epoch < tonumber(ARGV[1]) or tonumber(held[2]) < acknowledged
  or (acknowledged > 0 and redis.call('EXISTS', KEYS[2]) == 0) then
  return {'missing', 0, 0, 0}
end
if redis.call('GET', KEYS[3]) == ARGV[2] then
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
else
  redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
end
local keep = held[4] and ARGV[5] or ARGV[4]
redis.call('PEXPIRE', KEYS[1], keep)
redis.call('PEXPIRE', KEYS[2], keep)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.pcall('HSET', KEYS[1], 'renewed', now)
if #ARGV > 6 then redis.pcall('HSET', KEYS[1], unpack(ARGV, 7)) end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
local elsewhere = redis.call('ZCARD', KEYS[4])
if redis.call('ZSCORE', KEYS[4], ARGV[2]) then elsewhere = elsewhere - 1 end
return {'ok', held[3] and 1 or 0, held[4] and 1 or 0, elsewhere}
