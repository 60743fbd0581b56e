-- What a user did; nothing if that is what the caller has already. See record.lua. Items and places are JSON: one text is
-- read ten times as fast as thousands.
-- KEYS: log, known items, unknown items, ids. ARGV: born, arrivals and mark of what the caller has.
local head = redis.call("HGET", KEYS[1], "")
if not head then return {"0", "0", "", "[]", "[]"} end
local born, arrivals, mark = string.match(head, "^(%d+)|(%d+)|%-?%d*|?(%w*)$")
if not born then return redis.error_reply("WRONGTYPE a user's log does not begin as one") end
if born == ARGV[1] and arrivals == ARGV[2] and mark == ARGV[3] then return false end
return {born, arrivals, mark, cjson.encode(redis.call("HGETALL", KEYS[2])), cjson.encode(redis.call("HGETALL", KEYS[3]))}
