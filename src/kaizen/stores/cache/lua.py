"""What the cache has Redis do in one piece.

KEYS[1] is a scope's prefix; all other keys begin with it:

* ``:e:<key>``: a value, with its time to live;
* ``:meta``: a hash, by key the JSON of its bytes and tags;
* ``:until``: a sorted set of the keys by their end in Unix seconds (``inf`` for none);
* ``:t:<tag>``: a set of the keys that carry a tag;
* ``:bytes``, ``:epoch``: counts;
* ``:i:<tag>``: the epoch of the tag's last invalidation, for a day; ``:all`` that of the whole scope's.

A value that Redis has let end, or dropped for want of room, is still in the lists until somebody meets it there.
"""

from __future__ import annotations

from typing import Final

_SHARED: Final = """
local P = KEYS[1]
local AT_ONCE = 200
local function forget(key)
    local meta = redis.call('HGET', P..':meta', key)
    if not meta then return 0 end
    meta = cjson.decode(meta)
    redis.call('HDEL', P..':meta', key)
    redis.call('ZREM', P..':until', key)
    redis.call('DECRBY', P..':bytes', meta[1])
    for _, tag in ipairs(meta[2]) do redis.call('SREM', P..':t:'..tag, key) end
    return redis.call('DEL', P..':e:'..key)
end
local function drop_old(now)
    local old = redis.call('ZRANGEBYSCORE', P..':until', '-inf', now, 'LIMIT', 0, AT_ONCE)
    for _, key in ipairs(old) do
        forget(key)
        redis.call('ZREM', P..':until', key)
    end
    return #old == AT_ONCE and 1 or 0
end
"""

# ARGV: key, value, milliseconds to live, end, since, now, tags...
PUT: Final = (
    _SHARED
    + """
local key, value, ttl, till, since, now = unpack(ARGV, 1, 6)
if since ~= '' then
    since = tonumber(since)
    if tonumber(redis.call('GET', P..':all') or 0) > since then return 0 end
    for at = 7, #ARGV do
        if tonumber(redis.call('GET', P..':i:'..ARGV[at]) or 0) > since then return 0 end
    end
end
drop_old(now)
forget(key)
if ttl ~= '' and tonumber(ttl) <= 0 then return 0 end
local tags = {}
for at = 7, #ARGV do
    tags[#tags + 1] = ARGV[at]
    redis.call('SADD', P..':t:'..ARGV[at], key)
end
local size = #key + #value
local listed = #tags == 0 and '[]' or cjson.encode(tags)
redis.call('HSET', P..':meta', key, '['..size..','..listed..']')
redis.call('ZADD', P..':until', till == '' and 'inf' or till, key)
redis.call('INCRBY', P..':bytes', size)
if ttl == '' then redis.call('SET', P..':e:'..key, value)
else redis.call('SET', P..':e:'..key, value, 'PX', ttl) end
return 1
"""
)

# ARGV: now, all | some | more all | more some, tags...; gives how many were dropped and whether there are more
INVALIDATE: Final = (
    _SHARED
    + """
local now, what = ARGV[1], ARGV[2]
local all = what == 'all' or what == 'more all'
if what == 'all' or what == 'some' then
    local epoch = redis.call('INCR', P..':epoch')
    if all then redis.call('SET', P..':all', epoch) end
    for at = 3, #ARGV do redis.call('SET', P..':i:'..ARGV[at], epoch, 'EX', 86400) end
end
local dropped, met = 0, 0
if all then
    for _, key in ipairs(redis.call('ZRANGE', P..':until', 0, AT_ONCE - 1)) do
        dropped = dropped + forget(key)
        redis.call('ZREM', P..':until', key)
        met = met + 1
    end
else
    for at = 3, #ARGV do
        for _, key in ipairs(redis.call('SRANDMEMBER', P..':t:'..ARGV[at], AT_ONCE)) do
            dropped = dropped + forget(key)
            redis.call('SREM', P..':t:'..ARGV[at], key)
            met = met + 1
        end
    end
end
return {dropped, met > 0 and 1 or 0}
"""
)

# ARGV: now; gives whether there is more
DROP_OLD: Final = _SHARED + "return drop_old(ARGV[1])"
