-- Keep events of one user, all or none, and return what became of them: of what the user did, the change alone, or calls
-- would cost as much as a user remembers. The rules are those of service/stores/live_log.py.
-- KEYS, all hashes:
--   log              event id -> "arrival|moment sent|payload"; and "" -> "born|arrivals|newest moment"
--   known, unknown   item id -> "moment|arrival"
-- ARGV: now, life in seconds, bounds of events, known and unknown items; then of every event its id, item, moment,
--   payload, known (1 or 0), timed (1 or 0), and after how long its id repeats (or nothing). Times are microseconds.
local log, known, unknown = KEYS[1], KEYS[2], KEYS[3]

local function whole(number) return string.format("%.0f", number) end

local function pair(text)
    local first, second = string.match(text, "^(-?%d+)|(-?%d+)")
    return tonumber(first), tonumber(second)
end

-- Let the first tenth go where there are more than `bound`, first by the pair that values begin with. A tenth, so that
-- not every event has to sort them all. What goes is noted in `gone`.
local function trim(key, bound, others, gone)
    local size = redis.call("HLEN", key) - others
    if size <= bound then return end
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
    for i = 1, size - bound + math.floor(bound / 10) do
        redis.call("HDEL", key, rows[i][3])
        gone[#gone + 1] = rows[i][3]
    end
end

local born, arrivals, newest = ARGV[1], 0, nil
local head = redis.call("HGET", log, "")
if head then
    local first, second, third = string.match(head, "^(%d+)|(%d+)|(-?%d*)$")
    born, arrivals, newest = first, tonumber(second), tonumber(third)
end
local earlier, stored = arrivals, {}

local function meet(item, moment, is_known)
    local place = {moment, arrivals}
    for _, key in ipairs({known, unknown}) do
        local value = redis.call("HGET", key, item)
        if value then
            local before, arrival = pair(value)
            if before > moment then place = {before, arrival} end
        end
    end
    redis.call("HDEL", is_known and unknown or known, item)
    redis.call("HSET", is_known and known or unknown, item, whole(place[1]) .. "|" .. whole(place[2]))
end

for i = 6, #ARGV, 7 do
    local id, item, sent, payload = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
    local is_known, timed, repeats = ARGV[i + 4] == "1", ARGV[i + 5] == "1", tonumber(ARGV[i + 6])
    local before = redis.call("HGET", log, id)
    local sent_before = before and select(2, pair(before))
    if not before or (repeats and math.abs(sent - sent_before) > repeats) then
        local moment = sent
        if not timed and newest then moment = math.max(moment, newest) end
        newest = newest and math.max(newest, moment) or moment
        arrivals = arrivals + 1
        redis.call("HSET", log, id, whole(arrivals) .. "|" .. whole(sent) .. "|" .. payload)
        meet(item, moment, is_known)
        stored[#stored + 1] = (i - 6) / 7
    end
end

redis.call("HSET", log, "", born .. "|" .. whole(arrivals) .. "|" .. (newest and whole(newest) or ""))
local forgotten, met, looked = {}, {}, {}
trim(log, tonumber(ARGV[3]), 1, {})
trim(known, tonumber(ARGV[4]), 0, forgotten)
trim(unknown, tonumber(ARGV[5]), 0, forgotten)
for _, key in ipairs(KEYS) do redis.call("EXPIRE", key, ARGV[2]) end
for i = 7, #ARGV, 7 do
    local item = ARGV[i]
    local place = not looked[item] and (redis.call("HGET", known, item) or redis.call("HGET", unknown, item))
    looked[item] = true
    if place then
        met[#met + 1] = item
        met[#met + 1] = place
    end
end
return {born, whole(earlier), whole(arrivals), stored, met, forgotten}
