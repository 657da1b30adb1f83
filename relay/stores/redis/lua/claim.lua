-- Lets an id of a session name a stream, if it is free and the session has room.
-- KEYS: session, ids, order, running.
-- ARGV: id, claim ('stream fingerprint'), subject, limit of running streams, keep ms, stream,
--       ms for which it counts as running (0: not at all), ids that are remembered.
-- Answers: 'ok' | 'held' and the claim held | 'foreign' | 'full' and the number running.
local subject = redis.call('HGET', KEYS[1], 'subject')
if subject and subject ~= ARGV[3] then return {'foreign', ''} end
local held = redis.call('HGET', KEYS[2], ARGV[1])
if held and held ~= ARGV[2] then return {'held', held} end
local counts = tonumber(ARGV[7])
if counts > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
  local running = redis.call('ZCARD', KEYS[4])
  if not held and running >= tonumber(ARGV[4]) then return {'full', tostring(running)} end
  redis.call('ZADD', KEYS[4], now + counts, ARGV[6])
  redis.call('PEXPIRE', KEYS[4], counts)
end
if not subject then redis.call('HSET', KEYS[1], 'subject', ARGV[3]) end
if not held then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
  redis.call('RPUSH', KEYS[3], ARGV[1])
  if redis.call('LLEN', KEYS[3]) > tonumber(ARGV[8]) then
    redis.call('HDEL', KEYS[2], redis.call('LPOP', KEYS[3]))
  end
end
for at = 1, 3 do -- what another stream of the session needs is not cut short
  if redis.call('PTTL', KEYS[at]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[at], ARGV[5]) end
end
return {'ok', ''}
