-- begin.lua: open a generation of counters where there is none, and bring every mark up to what the ledger has seen.
--
-- A mark that is missing (flush) or behind (failover) would leave rows out of the reconciliation that were settled
-- before the loss and come from the hub no more.
--
-- KEYS  1 meta (hash)  2 marks (hash)
-- ARGV  1 generation  2 slack ms  then per stream: name, enqueued ms, sequence: the highest position the ledger has seen
-- Returns the generation in force.
local meta, marks, slack = KEYS[1], KEYS[2], tonumber(ARGV[2])
local clock = redis.call('TIME')
if redis.call('HSETNX', meta, 'gen', ARGV[1]) == 1 then
  redis.call('HSET', meta, 'born', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
end
local raised = false
for i = 3, #ARGV, 3 do
  local mark, ms, seq = redis.call('HGET', marks, ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local reached = false
  if mark then
    local mark_ms, mark_seq = string.match(mark, '^(%-?%d+) (%-?%d+)$')
    mark_ms, mark_seq = tonumber(mark_ms), tonumber(mark_seq)
    reached = seq <= mark_seq
    if math.abs(ms - mark_ms) > slack then reached = ms < mark_ms end
  end
  if not reached then
    redis.call('HSET', marks, ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
    raised = true
  end
end
-- A reconciliation that has read the marks as they were must not declare the counters ready.
if raised then redis.call('HINCRBY', meta, 'fence', 1) end
return redis.call('HGET', meta, 'gen')
