-- adjust.lua: add what the ledger says is missing, if nothing that the cut relied on has changed. Atomic.
-- It adds the difference and never sets: what settled since the cut stays counted.
--
-- KEYS  1 meta (hash)  2 marks (hash)  3 index (zset)  4 asserted (zset)  5.. cells (hashes)
-- ARGV  1 generation  2 fence  3 dirty seen  4 '1' = the counters are ready after this  5 slack ms  6 marks  7 cells
--       per mark  stream, enqueued ms, sequence
--       per cell  difference in nano, expire-at ms (0 = never), idle ms (0 = not client-asserted)
--       then the families that are seeded by this
-- Returns 'ok', or what changed: 'generation', 'fence', 'mark'.
local meta, marks, index, asserted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local state = redis.call('HMGET', meta, 'gen', 'fence', 'dirty')
if state[1] ~= ARGV[1] then return 'generation' end
if (state[2] or '0') ~= ARGV[2] then return 'fence' end
local slack, n_marks, n_cells, at = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), 7
for _ = 1, n_marks do
  local mark = redis.call('HGET', marks, ARGV[at + 1])
  if not mark then return 'mark' end
  local ms, seq = string.match(mark, '^(%-?%d+) (%-?%d+)$')
  local old_ms, old_seq = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  ms, seq = tonumber(ms), tonumber(seq)
  local kept = old_seq <= seq
  if math.abs(old_ms - ms) > slack then kept = old_ms < ms end
  if not kept then return 'mark' end
  at = at + 3
end
local clock = redis.call('TIME')
for c = 1, n_cells do
  local cell, difference, expire_at, idle = KEYS[4 + c], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  at = at + 3
  if difference ~= '0' then
    redis.call('HINCRBY', cell, 'spent', difference)
    if idle > 0 then
      redis.call('ZADD', asserted, tonumber(clock[1]) * 1000 + idle, cell)
      redis.call('PEXPIRE', cell, idle)
    else
      redis.call('ZADD', index, expire_at == '0' and '+inf' or expire_at, cell)
      if expire_at ~= '0' then redis.call('PEXPIREAT', cell, expire_at) end
    end
  end
end
redis.call('HINCRBY', meta, 'fence', 1)
if ARGV[4] == '1' then
  redis.call('HSET', meta, 'ready', 1)
  if (state[3] or '0') == ARGV[3] then redis.call('HDEL', meta, 'dirty') end
  for i = at + 1, #ARGV do redis.call('HSET', meta, 'fam:' .. ARGV[i], 1) end
end
return 'ok'
