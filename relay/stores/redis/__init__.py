"""The stream log in Redis (7 or later, or Valkey): any node serves any stream.

Streams live in Redis; a node holds those that it writes or that somebody reads here. What
is kept where, and for how long: docs/scaling.md. From the top:

- `log`: `RedisLog`, the stream log; puts the parts together.
- `leases`, `takeover`: the owner's leases, readers' presence, and orphans.
- `sessions`: sessions, the ids that name streams in them, and what is looked up by name.
- `listener`: the streams that are held here, and what is published of them.
- `courier`: carries records both ways, everything that waits with one round trip.
- `stream`, `encoding`: one stream as this node sees it; what it looks like at rest.
- `connection`, `health`: calls, and how Redis is doing.
- `limits`, `scripts`, `keys`: how long things are kept; the Lua scripts; names in Redis.
"""

from relay.stores.redis.connection import redis_client
from relay.stores.redis.limits import RedisLimits
from relay.stores.redis.log import RedisLog

__all__ = ["RedisLimits", "RedisLog", "redis_client"]
