-- What a user did; nothing if that is what the caller has already. See record.lua. Items and places are JSON: one text is
-- read ten times as fast as thousands.
-- KEYS: log, known items, unknown items, ids. ARGV: born and arrivals of what the caller has.
local head = redis.call("HGET", KEYS[1], "")
if not head then return {"0", "0", "[]", "[]"} end
local born, arrivals = string.match(head, "^(%d+)|(%d+)|")
if born == ARGV[1] and arrivals == ARGV[2] then return false end
return {born, arrivals, cjson.encode(redis.call("HGETALL", KEYS[2])), cjson.encode(redis.call("HGETALL", KEYS[3]))}
