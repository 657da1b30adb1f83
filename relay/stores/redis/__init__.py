"""The stream log in Redis (7 or later, or Valkey): any node serves any stream.

Streams live in Redis; a node holds in memory those that it writes or that have readers here. The
keys and how long they last: docs/scaling.md. The modules, top down:

- `log`: `RedisLog`, the stream log, and its limits; connects the other parts.
- `leases`: which node owns a stream: leases, readers' presence, and orphans.
- `sessions`: sessions, the ids that name streams in them, and lookups by name.
- `listener`: the streams that this node holds, and the messages published about them.
- `courier`: moves records to and from Redis, everything that waits in one round trip.
- `stream`, `encoding`: one stream as this node sees it; its form in Redis.
- `connection`: calls to Redis, and whether it works.
- `scripts`, `keys`: the Lua scripts, and how long they keep things; names in Redis.
"""

from relay.stores.redis.connection import redis_client
from relay.stores.redis.log import RedisLimits, RedisLog

__all__ = ["RedisLimits", "RedisLog", "redis_client"]
