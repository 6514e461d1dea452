-- begin.lua: open a generation of counters in an empty tenant, and give every stream a mark. Never overwrites.
--
-- KEYS  1 meta (hash)  2 marks (hash)
-- ARGV  1 generation  then per stream: name, enqueued ms, sequence: the highest position the ledger has seen
-- Returns the generation in force.
local clock = redis.call('TIME')
if redis.call('HSETNX', KEYS[1], 'gen', ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], 'born', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
end
for i = 2, #ARGV, 3 do redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2]) end
return redis.call('HGET', KEYS[1], 'gen')
