-- Takes a running stream whose lease ran out; the epoch rises, so that the former owner's
-- appends are refused.
-- KEYS: stream, lease.  ARGV: node, lease ms.
-- Answers the new epoch, or 0 where the stream is owned, ended or gone.
if redis.call('HGET', KEYS[1], 'status') ~= 'running' then return 0 end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
