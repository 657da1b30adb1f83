-- Leaves a node's mark, by a script, as all that matters is done by scripts.
-- KEYS: marker.  ARGV: ms for which it lasts.
-- Answers whether the last one was still there.
local there = redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
return there
