-- cut.lua: read counters and marks at one instant, the left side of a reconciliation. Reads only.
--
-- KEYS  1 meta (hash)  2 marks (hash)  3.. cells (hashes)
-- Returns {generation or '', fence, dirty, {stream, 'ms sequence', ...}, {spent per cell}}
local state = redis.call('HMGET', KEYS[1], 'gen', 'fence', 'dirty')
local spent = {}
for i = 3, #KEYS do spent[i - 2] = redis.call('HGET', KEYS[i], 'spent') or '0' end
return {state[1] or '', state[2] or '0', state[3] or '0', redis.call('HGETALL', KEYS[2]), spent}
