-- check.lua: look at every budget of a call, pick the first model that fits them all, hold its estimate. Atomic.
--
-- KEYS  1 meta (hash)  2 bits (hash)  3 index (zset)  4 asserted (zset)  5.. cells (hashes)
--       then 3 learned estimates (strings, may repeat) per candidate model
-- ARGV  1 hold TTL ms  2 bucket width ms  3 '1' = observe: hold even when refused  4 most client-asserted cells
--       5 the plan in MessagePack, the same for every call of its kind: {cells, budgets, candidates, valid from ms, valid until ms}
--           cell       {expire-at ms (0 = never), idle ms (0 = not client-asserted)}
--           budget     {cell number, stop $, stop nano, degrade $, degrade nano, on_stop (refuse|downgrade|allow), its family's field in meta},
--                      with rollover also the carry field, stop ppm, degrade ppm
--           candidate  {a flag per budget: x = does not apply, 0 = plain, 1 = passed over once degraded, 2 = a downgrade target,
--                       a flag per cell: 1 = holds there}
--       6.. per candidate: input nano, output pico per token, max output tokens (-1 = none), default output tokens
-- Amounts are nano-USD as int64 strings. Times are Redis's own: worker clocks differ by minutes.
-- Returns {'unready'|'stale'|'crowded', now ms, ...}
--      or {'ok'|'reserved'|'exhausted', now ms, candidate, budget, estimate, output tokens, mean tokens, bucket, ordinal, generation,
--          watermark ms, spent and held (before this call) per cell, carry per budget}
local floor, sub = math.floor, string.sub
local PROVEN_SAMPLES = 32 -- settle.lua keeps as many: until then calls whose holds were guessed may be in flight
local meta, bits, index, asserted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local ttl, width, observe, asserted_cap = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
local plan = cmsgpack.unpack(ARGV[5])
local cells, budgets, candidates = plan[1], plan[2], plan[3]
local n_cells, n_budgets, n_candidates = #cells, #budgets, #candidates
local FIRST_CELL, ESTIMATES_AT, ESTIMATE_ARGS = 4, 5, 4
local CHUNK = 48 -- ordinals per bits field: a Lua number is exact to 2^53

-- An amount past 2^53 nano ($9 million) is not exact in a Lua number, so large ones travel as dollars and nanos.
local function split(amount)
  local whole = tonumber(amount)
  if whole > -2 ^ 49 and whole < 2 ^ 49 then return 0, whole end -- what is added to it, even fourfold, stays exact
  local sign = 1
  if sub(amount, 1, 1) == '-' then sign, amount = -1, sub(amount, 2) end
  local digits = #amount
  return sign * tonumber(sub(amount, 1, digits - 9)), sign * tonumber(sub(amount, digits - 8))
end
-- How far dollars + nanos pass a limit; the sign is always right, whatever the size.
local function excess(dollars, nanos, limit_dollars, limit_nanos)
  return (dollars - limit_dollars) * 1e9 + (nanos - limit_nanos)
end

-- A fraction of a carry, which is never negative: floor(amount * ppm / 10^6) as dollars and nanos.
local function share(amount, ppm)
  local digits = #amount
  local dollars = digits > 9 and tonumber(sub(amount, 1, digits - 9)) * ppm or 0
  local nanos = tonumber(digits > 9 and sub(amount, digits - 8) or amount) * ppm
  return floor(dollars / 1e6), (dollars % 1e6) * 1000 + floor(nanos / 1e6)
end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + floor(tonumber(clock[2]) / 1000)

local wanted = {'gen', 'ready', 'horizon', 'wm', 'born'}
for b = 1, n_budgets do wanted[5 + b] = budgets[b][7] end
local state = redis.call('HMGET', meta, unpack(wanted))
local generation, born = state[1], tonumber(state[5])
-- Empty is not zero: without `ready` the counters say nothing yet.
if not generation or not state[2] then return {'unready', tostring(now)} end

if now < plan[4] or now >= plan[5] then return {'stale', tostring(now)} end

-- A hold expires only when its TTL has passed both the clock and the ingest watermark: while ingest stalls, calls that
-- were made are not in `spent` yet, and giving their holds back would let the budget be spent twice.
local watermark = tonumber(state[4]) or born
local horizon = tonumber(state[3]) or 0
local live = floor((math.min(now, watermark) - ttl) / width)
if live < horizon then live = horizon end
if live > horizon then
  redis.call('HSET', meta, 'horizon', live)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. now) -- counters that Redis forgot, or their names pile up
  redis.call('ZREMRANGEBYSCORE', asserted, '-inf', '(' .. now)
  local fields = redis.call('HGETALL', meta)
  for i = 1, #fields, 2 do
    local bucket = tonumber(string.match(fields[i], '^n:(%d+)$'))
    if bucket and bucket < live then
      local count, settled = tonumber(fields[i + 1]), 0
      for chunk = 0, floor(count / CHUNK) do
        local field = bucket .. ':' .. chunk
        local mask = tonumber(redis.call('HGET', bits, field) or '0')
        while mask > 0 do
          settled = settled + mask % 2
          mask = floor(mask / 2)
        end
        redis.call('HDEL', bits, field)
      end
      redis.call('HDEL', meta, fields[i])
      if count > settled then redis.call('HINCRBY', meta, 'expired', count - settled) end
    end
  end
end

local spent, held, carries, is_new, has_holds = {}, {}, {}, {}, {}
local spent_d, spent_n, held_d, held_n = {}, {}, {}, {}
for c = 1, n_cells do
  local cell, expire_at, idle = KEYS[FIRST_CELL + c], cells[c][1], cells[c][2]
  local row = redis.call('HMGET', cell, 'spent', 'held', 'oldest')
  local oldest = tonumber(row[3])
  if oldest and oldest < live then
    local fields, rest = redis.call('HGETALL', cell), nil
    for i = 1, #fields, 2 do
      local bucket = tonumber(string.match(fields[i], '^h:(%d+)$'))
      if bucket and bucket < live then
        if fields[i + 1] ~= '0' then redis.call('HINCRBY', cell, 'held', '-' .. fields[i + 1]) end -- '-0' is no integer
        redis.call('HDEL', cell, fields[i])
      elseif bucket and (not rest or bucket < rest) then
        rest = bucket
      end
    end
    if rest then redis.call('HSET', cell, 'oldest', rest) else redis.call('HDEL', cell, 'oldest') end
    oldest = rest
    row[2] = redis.call('HGET', cell, 'held')
  end
  is_new[c], has_holds[c] = not row[1] and not row[2], oldest
  if idle > 0 then
    if is_new[c] and redis.call('ZCARD', asserted) >= asserted_cap then
      redis.call('ZREMRANGEBYSCORE', asserted, '-inf', now)
      if redis.call('ZCARD', asserted) >= asserted_cap then return {'crowded', tostring(now), c} end
    end
  elseif is_new[c] then
    redis.call('ZADD', index, expire_at == 0 and '+inf' or expire_at, cell)
  end
  spent[c], held[c] = row[1] or '0', row[2] or '0'
  spent_d[c], spent_n[c] = split(spent[c])
  held_d[c], held_n[c] = split(held[c])
end

local limits = {}
for b = 1, n_budgets do
  local c, stop_d, stop_n, degrade_d, degrade_n, on_stop, _, carry_field, stop_ppm, degrade_ppm = unpack(budgets[b])
  local carry = '0'
  if carry_field then
    carry = redis.call('HGET', KEYS[FIRST_CELL + c], carry_field) or '0'
    local more_d, more_n = share(carry, stop_ppm)
    stop_d, stop_n = stop_d + more_d, stop_n + more_n
    more_d, more_n = share(carry, degrade_ppm)
    degrade_d, degrade_n = degrade_d + more_d, degrade_n + more_n
  end
  carries[b] = carry
  -- A family that was not seeded from the ledger yet does not know what was spent: its budgets wait.
  limits[b] = {c = c, stop_d = stop_d, stop_n = stop_n, degrade_d = degrade_d, degrade_n = degrade_n,
    on_stop = on_stop, seeded = state[5 + b]}
end

-- 0 = fits, 1 = passed over by a downgrade rule, 2 = only calls in flight are in the way, 3 = spent
local function verdict(limit, flag, est_d, est_n, known)
  local c = limit.c
  local used_d, used_n = spent_d[c] + held_d[c], spent_n[c] + held_n[c]
  local may_pass_stop = limit.on_stop == 'allow' or (limit.on_stop == 'downgrade' and flag == '2')
  if flag == '1' and excess(used_d, used_n, limit.degrade_d, limit.degrade_n) >= 0 then return 1 end
  if may_pass_stop then return 0 end
  if excess(spent_d[c], spent_n[c], limit.stop_d, limit.stop_n) >= 0
      or excess(spent_d[c] + est_d, spent_n[c] + est_n, limit.stop_d, limit.stop_n) > 0 then return 3 end
  if excess(used_d, used_n, limit.stop_d, limit.stop_n) >= 0
      or excess(used_d + est_d, used_n + est_n, limit.stop_d, limit.stop_n) > 0 then return 2 end
  -- An estimate that few calls have taught may be several times too low, and so may the holds of those in flight:
  -- such calls together hold at most a quarter of what is left, and one alone may always try.
  if not known and (held_d[c] > 0 or held_n[c] > 0) then
    local four_d, four_n = (held_d[c] + est_d) * 4, (held_n[c] + est_n) * 4
    if excess(spent_d[c] + four_d, spent_n[c] + four_n, limit.stop_d, limit.stop_n) > 0 then return 2 end
  end
  return 0
end

local function estimate(m)
  local at, learned_at = ESTIMATES_AT + (m - 1) * ESTIMATE_ARGS, FIRST_CELL + n_cells + (m - 1) * 3
  local cap, tokens = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local mean, known = tokens, tokens == 0
  local learned = redis.call('MGET', KEYS[learned_at + 1], KEYS[learned_at + 2], KEYS[learned_at + 3])
  local default, hinted = tokens, false
  for i = 1, 3 do
    if learned[i] then
      local q, average, samples = string.match(learned[i], '^(%d+) (%d+) (%d+) ')
      -- What only the rest of the tenant taught is a hint: another team's short answers say little of this one's.
      local own = i == 1 or KEYS[learned_at + i] ~= KEYS[learned_at + 3]
      if own and tonumber(samples) >= PROVEN_SAMPLES then
        tokens, mean, known = tonumber(q), tonumber(average), true
        break
      end
      if not hinted then
        tokens, mean, hinted = own and tonumber(q) or math.max(default, tonumber(q)), tonumber(average), true
      end
    end
  end
  if cap >= 0 and cap <= tokens then tokens, known = cap, true end
  if cap >= 0 and cap < mean then mean = cap end
  local amount = tonumber(ARGV[at + 1]) + math.ceil(tokens * tonumber(ARGV[at + 2]) / 1000)
  return amount, tokens, mean, known
end

local outcome, chosen, binding, chosen_estimate, chosen_tokens, chosen_mean = 'exhausted', 0, 0, 0, 0, 0
for m = 1, n_candidates do
  local amount, tokens, mean, known = estimate(m)
  local est_d, est_n = floor(amount / 1e9), amount % 1e9
  local flags = candidates[m][1]
  local worst, worst_budget = 0, 0
  for b = 1, n_budgets do
    local flag = sub(flags, b, b)
    if flag ~= 'x' and limits[b].seeded then
      local v = verdict(limits[b], flag, est_d, est_n, known)
      if v > worst then worst, worst_budget = v, b end
    end
  end
  if worst == 0 or m == 1 then chosen, chosen_estimate, chosen_tokens, chosen_mean = m, amount, tokens, mean end
  if worst == 0 then
    outcome = 'ok'
    break
  end
  if worst > 1 and (binding == 0 or worst == 2) then binding = worst_budget end
  if worst == 2 then outcome = 'reserved' end
end

local bucket, ordinal = floor(now / width), 0
if outcome == 'ok' or observe then
  local amount = string.format('%.0f', chosen_estimate)
  local holds = candidates[chosen][2]
  ordinal = redis.call('HINCRBY', meta, 'n:' .. bucket, 1)
  for c = 1, n_cells do
    if sub(holds, c, c) == '1' then
      local cell, expire_at, idle = KEYS[FIRST_CELL + c], cells[c][1], cells[c][2]
      redis.call('HINCRBY', cell, 'held', amount)
      redis.call('HINCRBY', cell, 'h:' .. bucket, amount)
      if not has_holds[c] then redis.call('HSET', cell, 'oldest', bucket) end
      if is_new[c] and idle == 0 and expire_at ~= 0 then redis.call('PEXPIREAT', cell, expire_at) end
      if idle > 0 then
        redis.call('ZADD', asserted, now + idle, cell)
        redis.call('PEXPIRE', cell, idle)
      end
    end
  end
end

local answer = {outcome, tostring(now), chosen, binding, string.format('%.0f', chosen_estimate), chosen_tokens,
  math.ceil(chosen_mean), bucket, ordinal, generation, tostring(watermark)}
for c = 1, n_cells do
  answer[#answer + 1] = spent[c]
  answer[#answer + 1] = held[c]
end
for b = 1, n_budgets do answer[#answer + 1] = carries[b] end
return answer
