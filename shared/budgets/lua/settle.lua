-- settle.lua: apply one tenant's part of one partition's batch to the counters, exactly once. Atomic.
-- Without a stream it only gives reservations back and notes what is dirty.
--
-- KEYS  1 meta (hash)  2 bits (hash)  3 index (zset)  4 asserted (zset)  5 marks (hash)  6.. cells (hashes), then learned estimates (strings)
-- ARGV  1 stream, '' = releases only  2-3 first position  4-5 last position  6-7 the mark last seen, '' = none  8 slack ms
--       9 '1' = a row below the mark was newly inserted  10 how long a learned estimate is kept ms
--       11 cells  12 charges  13 releases  14 learned
--       per charge   cell number, nano, expire-at ms (0 = never), idle ms (0 = not client-asserted)
--       per release  generation, bucket, ordinal, nano, n, n cell numbers
--       per learned  n, n output token counts
-- A position is enqueued ms and sequence. Amounts are nano-USD as int64 strings that Redis itself adds.
-- Returns {'overlap', mark ms, mark sequence} when the batch starts at or before the mark: trim and come again;
--      or {'ok', generation or '', ready or '', '1' when the mark had gone back, spent per charge}
local floor = math.floor
local meta, bits, index, asserted, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local stream = ARGV[1]
local n_cells, n_charges, n_releases, n_learned = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local FIRST_CELL, at = 5, 14
local CHUNK = 48
local RING, SLOWEST_DECAY, FLOOR_TOKENS = 32, 0.98, 16

-- Enqueue time decides beyond the slack, the sequence inside it: a re-created hub restarts its sequence.
local function at_or_before(ms, seq, mark_ms, mark_seq)
  local slack = tonumber(ARGV[8])
  if math.abs(ms - mark_ms) > slack then return ms < mark_ms end
  return seq <= mark_seq
end

local state = redis.call('HMGET', meta, 'gen', 'ready', 'horizon')
local generation, ready, horizon = state[1], state[2], tonumber(state[3]) or 0
local went_back = '0'
if stream ~= '' then
  local mark = redis.call('HGET', marks, stream)
  local mark_ms, mark_seq
  if mark then
    local ms, seq = string.match(mark, '^(%-?%d+) (%-?%d+)$')
    mark_ms, mark_seq = tonumber(ms), tonumber(seq)
    if at_or_before(tonumber(ARGV[2]), tonumber(ARGV[3]), mark_ms, mark_seq) then return {'overlap', ms, seq} end
  end
  -- The mark this worker saw last is gone: a failover lost the tail, the counters are short until reconciled.
  if ARGV[6] ~= '' and ready
      and (not mark or not at_or_before(tonumber(ARGV[6]), tonumber(ARGV[7]), mark_ms, mark_seq)) then
    redis.call('HINCRBY', meta, 'dirty', 1)
    redis.call('HDEL', meta, 'ready')
    ready, went_back = false, '1'
  end
  redis.call('HSET', marks, stream, ARGV[4] .. ' ' .. ARGV[5])
end
if ARGV[9] == '1' then redis.call('HINCRBY', meta, 'dirty', 1) end

local answer = {'ok', generation or '', ready or '', went_back}
for _ = 1, n_charges do
  local cell, amount, expire_at, idle = KEYS[FIRST_CELL + tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
  at = at + 4
  if redis.call('EXISTS', cell) == 0 then
    redis.call('HSET', cell, 'spent', 0)
    if idle > 0 then
      local clock = redis.call('TIME')
      redis.call('ZADD', asserted, tonumber(clock[1]) * 1000 + idle, cell)
      redis.call('PEXPIRE', cell, idle)
    else
      redis.call('ZADD', index, expire_at == '0' and '+inf' or expire_at, cell)
      if expire_at ~= '0' then redis.call('PEXPIREAT', cell, expire_at) end
    end
  end
  redis.call('HINCRBY', cell, 'spent', amount)
  answer[#answer + 1] = redis.call('HGET', cell, 'spent') or '0'
end

for _ = 1, n_releases do
  local owner, bucket, ordinal, amount, n = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ARGV[at + 4], tonumber(ARGV[at + 5])
  at = at + 5
  -- Given back once: not after a flush, not after it expired, not twice.
  if owner == generation and bucket >= horizon then
    local field, bit = bucket .. ':' .. floor(ordinal / CHUNK), 2 ^ (ordinal % CHUNK)
    local mask = tonumber(redis.call('HGET', bits, field) or '0')
    if floor(mask / bit) % 2 == 0 then
      redis.call('HSET', bits, field, string.format('%.0f', mask + bit))
      for i = 1, n do
        local cell = KEYS[FIRST_CELL + tonumber(ARGV[at + i])]
        if redis.call('HEXISTS', cell, 'h:' .. bucket) == 1 then
          redis.call('HINCRBY', cell, 'h:' .. bucket, '-' .. amount)
          redis.call('HINCRBY', cell, 'held', '-' .. amount)
        end
      end
    end
  end
  at = at + n
end

for l = 1, n_learned do
  local key, n = KEYS[FIRST_CELL + n_cells + l], tonumber(ARGV[at + 1])
  local known = redis.call('GET', key)
  local ring, previous = {}, nil
  if known then
    local q, _, samples = string.match(known, '^(%d+) (%d+) (.*)$')
    previous = tonumber(q)
    for sample in string.gmatch(samples, '%d+') do ring[#ring + 1] = tonumber(sample) end
  end
  for i = 1, n do ring[#ring + 1] = tonumber(ARGV[at + 1 + i]) end
  at = at + 1 + n
  while #ring > RING do table.remove(ring, 1) end
  local sorted, sum = {}, 0
  for i = 1, #ring do
    sorted[i] = ring[i]
    sum = sum + ring[i]
  end
  table.sort(sorted)
  local q = math.max(sorted[math.ceil(#sorted * 0.95)], FLOOR_TOKENS)
  -- Up at once, down slowly: tiny calls must not train the estimate down just before a burst.
  if previous and q < previous then q = math.max(q, floor(previous * SLOWEST_DECAY ^ n)) end
  redis.call('SET', key, string.format('%d %d %s', q, math.ceil(sum / #ring), table.concat(ring, ' ')), 'PX', ARGV[10])
end
return answer
