-- settle.lua: apply one tenant's part of one partition's batch to the counters, exactly once. Atomic.
-- Without a stream it only gives reservations back and notes what is dirty.
--
-- KEYS  1 meta (hash)  2 bits (hash)  3 index (zset)  4 asserted (zset)  5 marks (hash)  6.. cells (hashes), then learned estimates (strings)
-- ARGV  1 stream, '' = releases only  2-3 first position  4-5 last position  6-7 the mark last seen, '' = none  8 slack ms
--       9 '1' = a row below the mark was newly inserted  10 how long a learned estimate is kept ms
--       11 what to apply in MessagePack: {charges, releases, learned}
--           charge   {key number, nano, expire-at ms (0 = never), idle ms (0 = not client-asserted)}
--           release  {generation, bucket, ordinal, nano, {key numbers}}
--           learned  {key number, {output token counts}}
-- A position is enqueued ms and sequence. Amounts are nano-USD as int64 strings that Redis itself adds.
-- Returns {'overlap', mark ms, mark sequence} when the batch starts at or before the mark: trim and come again;
--      or {'ok', generation or '', ready or '', '1' when the mark had gone back, spent per charge}
local floor = math.floor
local meta, bits, index, asserted, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local stream = ARGV[1]
local charges, releases, learned = unpack(cmsgpack.unpack(ARGV[11]))
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
for _, charge in ipairs(charges) do
  local cell, amount, expire_at, idle = KEYS[charge[1]], charge[2], charge[3], charge[4]
  local spent = redis.call('HINCRBY', cell, 'spent', amount)
  local exact = spent > -2 ^ 53 and spent < 2 ^ 53
  answer[#answer + 1] = exact and string.format('%.0f', spent) or redis.call('HGET', cell, 'spent')
  if idle > 0 then -- the silence starts anew at every use
    local clock = redis.call('TIME')
    redis.call('ZADD', asserted, tonumber(clock[1]) * 1000 + idle, cell)
    redis.call('PEXPIRE', cell, idle)
  elseif spent == tonumber(amount) and redis.call('HLEN', cell) == 1 then -- only `spent`: the cell may be new; one of long ago is gone at once
    redis.call('ZADD', index, expire_at == 0 and '+inf' or expire_at, cell)
    if expire_at ~= 0 then redis.call('PEXPIREAT', cell, expire_at) end
  end
end

for _, release in ipairs(releases) do
  local owner, bucket, ordinal, amount, cells = unpack(release)
  -- Given back once: not after a flush, not after it expired, not twice.
  if owner == generation and bucket >= horizon then
    local field, bit = bucket .. ':' .. floor(ordinal / CHUNK), 2 ^ (ordinal % CHUNK)
    local mask = tonumber(redis.call('HGET', bits, field) or '0')
    if floor(mask / bit) % 2 == 0 then
      redis.call('HSET', bits, field, string.format('%.0f', mask + bit))
      for _, number in ipairs(cells) do
        local cell, held = KEYS[number], 'h:' .. bucket
        if amount ~= '0' and redis.call('HEXISTS', cell, held) == 1 then -- '-0' is no integer to Redis
          redis.call('HINCRBY', cell, held, '-' .. amount)
          redis.call('HINCRBY', cell, 'held', '-' .. amount)
        end
      end
    end
  end
end

for _, lesson in ipairs(learned) do
  local key, samples = KEYS[lesson[1]], lesson[2]
  local known, previous, ring = redis.call('GET', key), nil, {}
  if known then
    local q, packed = string.match(known, '^(%d+) %d+ %d+ (.*)$')
    previous, ring = tonumber(q), cmsgpack.unpack(packed)
  end
  local kept, sum, largest, second = {}, 0, 0, 0 -- the newest RING of all
  local function keep(list, from)
    for i = math.max(1, from), #list do
      local sample = list[i]
      kept[#kept + 1], sum = sample, sum + sample
      if sample > largest then largest, second = sample, largest elseif sample > second then second = sample end
    end
  end
  keep(ring, #ring + #samples - RING + 1)
  keep(samples, #samples - RING + 1)
  -- The 95th percentile of so few samples is the largest of them, from twenty on the second largest.
  local q = math.max(#kept < 20 and largest or second, FLOOR_TOKENS)
  -- Up at once, down slowly: tiny calls must not train the estimate down just before a burst.
  if previous and q < previous then q = math.max(q, floor(previous * SLOWEST_DECAY ^ #samples)) end
  local text = string.format('%d %d %d ', q, math.ceil(sum / #kept), #kept)
  redis.call('SET', key, text .. cmsgpack.pack(kept), 'PX', ARGV[10])
end
return answer
