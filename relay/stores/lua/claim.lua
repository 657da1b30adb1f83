-- Lets an id of a session name a stream, if it is free and the session has room.
-- KEYS: session, ids, running.
-- ARGV: id, claim ('stream fingerprint'), subject, limit of running streams, keep ms, stream,
--       1 where a running stream is counted.
-- Answers: 'ok' | 'held' and the claim held | 'foreign' | 'full' and the number running.
local subject = redis.call('HGET', KEYS[1], 'subject')
if subject and subject ~= ARGV[3] then return {'foreign', ''} end
local held = redis.call('HGET', KEYS[2], ARGV[1])
if held then return {'held', held} end
if ARGV[7] == '1' then
  local running = redis.call('SCARD', KEYS[3])
  if running >= tonumber(ARGV[4]) then return {'full', tostring(running)} end
  redis.call('SADD', KEYS[3], ARGV[6])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
end
if not subject then redis.call('HSET', KEYS[1], 'subject', ARGV[3]) end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return {'ok', ''}
