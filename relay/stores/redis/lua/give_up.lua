-- Lets a stream go that lost records which nobody alive has, unless somebody else took it.
-- KEYS: stream, log, lease.  ARGV: epoch.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and epoch ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 1
