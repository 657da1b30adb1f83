-- Appends a batch of records if the writer still owns the stream and nothing is missing
-- before it, and wakes the followers. A call that timed out may have run: it is told apart
-- as a duplicate. 'gap' and 'missing' both say that Redis lost records it had acknowledged.
-- KEYS: stream, log, lease.
-- ARGV: epoch, first seq, count (0: only the fields that follow are to be kept), payload,
--       ms that an ended one stays, status after it, ms that an erased one stays, then field
--       and value pairs of what the owner notes beside its records.
local held = redis.call('HMGET', KEYS[1], 'epoch', 'next', 'erased')
if not held[1] then return 'missing' end
if tonumber(held[1]) > tonumber(ARGV[1]) then return 'fenced' end
local next, first, count = tonumber(held[2]), tonumber(ARGV[2]), tonumber(ARGV[3])
if held[1] ~= ARGV[1] then return 'gap' end
if #ARGV > 7 then redis.call('HSET', KEYS[1], unpack(ARGV, 8)) end
if first + count <= next then return 'duplicate' end
if first ~= next then return 'gap' end
redis.call('XADD', KEYS[2], (first + count) .. '-0', 'e', ARGV[1], 'r', ARGV[4])
redis.call('HSET', KEYS[1], 'next', first + count, 'status', ARGV[6])
local keep = ARGV[5]
if ARGV[6] ~= 'running' then
  redis.call('HDEL', KEYS[1], 'request', 'attempts', 'account', 'accepted')
  redis.call('DEL', KEYS[3])
  if held[3] then keep = ARGV[7] end
end
if ARGV[6] ~= 'running' then
  redis.call('PEXPIRE', KEYS[1], keep)
  redis.call('PEXPIRE', KEYS[2], keep)
elseif first == 0 then -- from here on, renewals of the lease keep both
  redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1]))
end
redis.call('SPUBLISH', KEYS[1], first + count)
return 'ok'
