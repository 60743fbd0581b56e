-- Keep events of one user, all or none, and return what became of them: of what the user did, the change alone, or calls
-- would cost as much as a user remembers. The rules are those of service/stores/live_log.py.
-- KEYS, three hashes and a sorted set:
--   log              event id -> "arrival|moment sent|payload"; and "" -> "born|arrivals|newest moment|mark"
--   known, unknown   item id -> "moment|arrival"
--   ids              event ids by when they came, every one later than that before
-- ARGV: now, life in seconds, bounds of events, known and unknown items and ids, life of ids in seconds, the latest
--   that can be, a mark that no other call has; then of every event its id, item, moment, payload, known (1 or 0), timed (1 or 0), and after how long its id repeats (or nothing).
--   Times are microseconds.
local log, known, unknown, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, latest, EVENTS, EVENT = tonumber(ARGV[1]), tonumber(ARGV[8]), 10, 7

local function whole(number) return string.format("%.0f", number) end

local function pair(text)
    local first, second = string.match(text, "^(-?%d+)|(-?%d+)")
    return tonumber(first), tonumber(second)
end

-- Let the first go that are more than `bound`, first by the pair that values begin with, once they are a tenth more, so
-- that not every event has to sort them all. What goes is noted in `gone`.
local function trim(key, bound, others, gone)
    local size = redis.call("HLEN", key) - others
    if size <= bound + math.floor(bound / 10) then return end
    local fields, rows = redis.call("HGETALL", key), {}
    for i = 1, #fields, 2 do
        if fields[i] ~= "" or others == 0 then
            local first, second = pair(fields[i + 1])
            rows[#rows + 1] = {first, second, fields[i]}
        end
    end
    table.sort(rows, function(a, b)
        if a[1] ~= b[1] then return a[1] < b[1] end
        return a[2] < b[2]
    end)
    for i = 1, size - bound do
        redis.call("HDEL", key, rows[i][3])
        gone[#gone + 1] = rows[i][3]
    end
end

-- A key of another type ends it here: what a script wrote before an error stays.
for _, key in ipairs({log, known, unknown}) do redis.call("HLEN", key) end
redis.call("ZCARD", ids)

-- A state is known by the mark of the write that made it: a server that lost its latest writes, as a replica that takes
-- over may have, gives their numbers to others.
local born, arrivals, newest, mark = ARGV[1], 0, nil, ""
local head = redis.call("HGET", log, "")
if head then
    local first, second, third, fourth = string.match(head, "^(%d+)|(%d+)|(-?%d*)|?(%w*)$")
    if not first then return redis.error_reply("WRONGTYPE a user's log does not begin as one") end
    born, arrivals, newest, mark = first, tonumber(second), tonumber(third), fourth
end
local earlier, before, stored, settled = arrivals, mark, {}, {}

-- Nothing is later than clocks may differ: what is was written when the clock was ahead, or by an earlier version. Then
-- all that is later than now happened now: as it arrived in order, it stays in order, with what is to come behind it.
local function settle()
    local events = redis.call("HGETALL", log)
    for i = 1, #events, 2 do
        local arrival, sent, payload = string.match(events[i + 1], "^(%d+)|(-?%d+)|(.*)$")
        if events[i] ~= "" and tonumber(sent) > now then
            redis.call("HSET", log, events[i], arrival .. "|" .. whole(now) .. "|" .. payload)
        end
    end
    for _, key in ipairs({known, unknown}) do
        local items = redis.call("HGETALL", key)
        for i = 1, #items, 2 do
            local moment, arrival = pair(items[i + 1])
            if moment > now then
                redis.call("HSET", key, items[i], whole(now) .. "|" .. whole(arrival))
                settled[#settled + 1] = items[i]
            end
        end
    end
    newest = now
end

local function meet(item, moment, is_known, timed)
    local place = {moment, arrivals}
    for _, key in ipairs({known, unknown}) do
        local value = redis.call("HGET", key, item)
        if value then
            local before, arrival = pair(value)
            if before > moment or (timed and before == moment) then place = {before, arrival} end
        end
    end
    redis.call("HDEL", is_known and unknown or known, item)
    redis.call("HSET", is_known and known or unknown, item, whole(place[1]) .. "|" .. whole(place[2]))
end

-- When an id came, if it is remembered. What is older goes at the end: the first write must be one that a full memory
-- refuses, as only that refuses all of them.
local oldest = now - tonumber(ARGV[7]) * 1e6
local function came(id)
    local stamp = tonumber(redis.call("ZSCORE", ids, id) or nil)
    return stamp and stamp >= oldest and stamp or nil
end

local stamp = tonumber(redis.call("ZRANGE", ids, -1, -1, "WITHSCORES")[2] or 0)
for i = EVENTS, #ARGV, EVENT do
    local id, item, sent, payload = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
    local is_known, timed, repeats = ARGV[i + 4] == "1", ARGV[i + 5] == "1", tonumber(ARGV[i + 6])
    local logged = redis.call("HGET", log, id)
    local last = logged and select(2, pair(logged)) or came(id)
    if not last or (repeats and math.abs(sent - last) > repeats) then
        stamp = math.max(now, stamp + 1)
        redis.call("ZADD", ids, whole(stamp), id)
        if newest and newest > latest then settle() end
        local moment = sent
        if not timed and newest then moment = math.max(moment, newest) end
        newest = newest and math.max(newest, moment) or moment
        arrivals = arrivals + 1
        redis.call("HSET", log, id, whole(arrivals) .. "|" .. whole(sent) .. "|" .. payload)
        meet(item, moment, is_known, timed)
        stored[#stored + 1] = (i - EVENTS) / EVENT
    end
end

-- Where all was kept before, nothing is written that a full memory would refuse.
if #stored > 0 then
    mark = ARGV[9]
    redis.call("HSET", log, "", born .. "|" .. whole(arrivals) .. "|" .. whole(newest) .. "|" .. mark)
end
local forgotten, met, looked = {}, {}, {}
trim(log, tonumber(ARGV[3]), 1, {})
trim(known, tonumber(ARGV[4]), 0, forgotten)
trim(unknown, tonumber(ARGV[5]), 0, forgotten)
redis.call("ZREMRANGEBYSCORE", ids, "-inf", "(" .. whole(oldest))
redis.call("ZREMRANGEBYRANK", ids, 0, -tonumber(ARGV[6]) - 1)
for _, key in ipairs({log, known, unknown}) do redis.call("EXPIRE", key, ARGV[2]) end
redis.call("EXPIRE", ids, math.min(tonumber(ARGV[2]), tonumber(ARGV[7])))
local function look(item)
    local place = not looked[item] and (redis.call("HGET", known, item) or redis.call("HGET", unknown, item))
    looked[item] = true
    if place then
        met[#met + 1] = item
        met[#met + 1] = place
    end
end
for i = EVENTS + 1, #ARGV, EVENT do look(ARGV[i]) end
for _, item in ipairs(settled) do look(item) end
return {born, whole(earlier), whole(arrivals), before, mark, stored, met, forgotten}
