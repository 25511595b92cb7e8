"""What Redis does for one batch of one tenant, in one step: the arithmetic of ``book.py``, in the form of ``wire.py``.

Numbers are doubles here, exact up to 2^53, and written without an exponent. Keys: the set of calls that wait, what they
give back, then for each account its hash and the hash of its calls in the air. Those of swept calls are made of the
prefix: they lie in the tenant's slot with all others.
"""

from __future__ import annotations

from typing import Final

from kaizen.stores.govern.wire import NEVER_MS

SCRIPT: Final = """
local waiting, backs = KEYS[1], KEYS[2]
local batch = cjson.decode(ARGV[1])
local who, hold, prefix, kept = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[6]
local clock = redis.call('TIME')
local now = tonumber(ARGV[5]) or (tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local day = math.floor(now / 86400000)

-- months since 1970 of a day since 1970: "civil from days" of Howard Hinnant, whose years begin in March
local function months_of(days)
    local z = days + 719468
    local era = math.floor(z / 146097)
    local doe = z - era * 146097
    local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
    local mp = math.floor((5 * doy + 2) / 153)
    return (era * 400 + yoe - 1970) * 12 + mp + 2
end

local month = months_of(day)

local function month_ends()
    local last = day
    while months_of(last) == month do last = last + 1 end
    return last * 86400000
end

local function whole(number) return string.format('%.0f', number) end
local function given(value) return value ~= nil and value ~= cjson.null and value or nil end

local accounts, changed = {}, {}

local function load(key)
    local account = accounts[key]
    if not account then
        local row = redis.call('HMGET', key, 'requests', 'tokens', 'at', 'day', 'usd_day', 'month', 'usd_month')
        account = {
            requests = tonumber(row[1]), tokens = tonumber(row[2]), at = tonumber(row[3]) or 0,
            day = tonumber(row[4]) or 0, usd_day = tonumber(row[5]) or 0,
            month = tonumber(row[6]) or 0, usd_month = tonumber(row[7]) or 0,
        }
        accounts[key] = account
    end
    return account
end

local function account_key(place) return KEYS[1 + 2 * place] end
local function air_key(place) return KEYS[2 + 2 * place] end

local function correct(key, calls, tokens, usd, of_day, of_month)
    local account = load(key)
    if account.requests then account.requests = account.requests + calls * 60000 end
    if account.tokens then account.tokens = account.tokens + tokens * 60000 end
    if account.day == of_day then account.usd_day = account.usd_day - usd end
    if account.month == of_month then account.usd_month = account.usd_month - usd end
    changed[key] = true
end

for _, mark in ipairs(batch.alive or {}) do
    if redis.call('ZSCORE', waiting, mark) then redis.call('ZADD', waiting, whole(now + hold), mark) end
end

local function sweep()
    local found = redis.call('ZRANGEBYSCORE', waiting, '-inf', whole(now), 'LIMIT', 0, 100)
    for _, mark in ipairs(found) do
        local back = cjson.decode(redis.call('HGET', backs, mark))
        for _, name in ipairs(back[2]) do
            correct(prefix .. 'account:' .. name, back[3], back[4], back[5], back[6], back[7])
        end
        redis.call('ZREM', waiting, mark)
        redis.call('HDEL', backs, mark)
    end
    return #found > 0
end

if batch.alive then sweep() end

for _, op in ipairs(batch.settles) do
    local from = 2
    if given(op[7]) then
        if redis.call('ZREM', waiting, op[7]) == 0 then from = 8 end
        redis.call('HDEL', backs, op[7])
    end
    for _, place in ipairs(op[1]) do correct(account_key(place), op[from], op[from + 1], op[from + 2], op[5], op[6]) end
end

for _, op in ipairs(batch.waits) do
    redis.call('ZADD', waiting, whole(now + hold), op[1])
    redis.call('HSET', backs, op[1], op[2])
end

local own, others = {}, {}
for _, one in ipairs(batch.air) do own[one[1]] = one[2] end

local function in_air(place)
    if not others[place] then
        local sum, entries = 0, redis.call('HGETALL', air_key(place))
        for i = 1, #entries, 2 do
            local calls, till = string.match(entries[i + 1], '^(%d+):(%d+)$')
            if tonumber(till) <= now then
                redis.call('HDEL', air_key(place), entries[i])
            elseif entries[i] ~= who then
                sum = sum + tonumber(calls)
            end
        end
        others[place] = sum
    end
    return others[place] + (own[place] or 0)
end

local function filled(level, per_minute, elapsed)
    if not per_minute then return nil end
    if not level then return per_minute * 60000 end
    return math.min(per_minute * 60000, level + elapsed * per_minute)
end

local function advance(account, requests, tokens)
    local elapsed = now - account.at
    if elapsed < 0 and elapsed >= -60000 then
        elapsed = 0
    else
        account.at = now
        elapsed = math.max(0, math.min(elapsed, 60000))
    end
    account.requests = filled(account.requests, requests, elapsed)
    account.tokens = filled(account.tokens, tokens, elapsed)
    if day > account.day or account.day - day > 1 then account.day, account.usd_day = day, 0 end
    if month > account.month or account.month - month > 1 then account.month, account.usd_month = month, 0 end
end

local NEVER = NEVER_MS

local function wait(level, per_minute, wanted)
    if not per_minute then return 0 end
    if wanted > per_minute then return NEVER end
    return math.max(0, math.ceil((wanted * 60000 - level) / per_minute))
end

local function decide(take)
    local calls, tokens, usd, claims = take[1], take[2], take[3], take[4]
    local best, budget, refused = 0, false, nil
    local function obstacle(ms, is_budget, claim, limit)
        if ms > 0 and (is_budget and not budget or is_budget == budget and ms > best) then
            best, budget, refused = ms, is_budget, {claim - 1, limit}
        end
    end
    for i, claim in ipairs(claims) do
        local requests, per_tokens, concurrent = given(claim[2]), given(claim[3]), given(claim[4])
        local per_day, per_month = given(claim[5]), given(claim[6])
        local account = load(account_key(claim[1]))
        advance(account, requests, per_tokens)
        if usd ~= 0 then
            if per_month and account.usd_month + usd > per_month then obstacle(month_ends() - now, true, i, 4) end
            if per_day and account.usd_day + usd > per_day then obstacle((day + 1) * 86400000 - now, true, i, 3) end
        end
        obstacle(wait(account.requests, requests, calls), false, i, 0)
        obstacle(wait(account.tokens, per_tokens, tokens), false, i, 1)
        if concurrent and in_air(claim[1]) + calls > concurrent then
            obstacle(calls > concurrent and NEVER or 1000, false, i, 2)
        end
    end
    if refused then return {refused[1], refused[2], best} end
    for _, claim in ipairs(claims) do
        local key = account_key(claim[1])
        local account = load(key)
        if account.requests then account.requests = account.requests - calls * 60000 end
        if account.tokens then account.tokens = account.tokens - tokens * 60000 end
        account.usd_day, account.usd_month = account.usd_day + usd, account.usd_month + usd
        changed[key] = true
        if given(claim[4]) then own[claim[1]] = (own[claim[1]] or 0) + calls end
    end
    return {day, month}
end

local outcomes, any_refused = {}, false
for i, take in ipairs(batch.takes) do
    outcomes[i] = decide(take)
    any_refused = any_refused or #outcomes[i] == 3
end
if any_refused and sweep() then
    for i, take in ipairs(batch.takes) do
        if #outcomes[i] == 3 then outcomes[i] = decide(take) end
    end
end

for key in pairs(changed) do
    local account = accounts[key]
    redis.call('HSET', key, 'at', whole(account.at), 'day', whole(account.day), 'usd_day', whole(account.usd_day),
        'month', whole(account.month), 'usd_month', whole(account.usd_month))
    for _, bucket in ipairs({'requests', 'tokens'}) do
        if account[bucket] then
            redis.call('HSET', key, bucket, whole(account[bucket]))
        else
            redis.call('HDEL', key, bucket)
        end
    end
    redis.call('EXPIRE', key, kept)
end
for place, calls in pairs(own) do
    redis.call('HSET', air_key(place), who, whole(calls) .. ':' .. whole(now + hold))
    redis.call('EXPIRE', air_key(place), kept)
end
return outcomes
""".replace("NEVER_MS", str(NEVER_MS))
