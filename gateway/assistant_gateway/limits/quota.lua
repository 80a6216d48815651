-- What a tenant and its assistants may use: requests by rate, tokens per day, money per day or month.
--
-- KEYS  1 state     hash: `epoch`, and one field per scope (`tenant`, `assistant:<name>`), see `fresh`
--       2 requests  hash: request id -> {tokens, cost, scope...} while held, {-1, tokens, cost} once settled
--       3 deadlines sorted set: request id by when its hold is taken back, or its record forgotten
--       4 ledger    stream: `at` (microseconds), `entry`
-- ARGV  1 operation; 2-4 and 5-7 boundaries of the day and of the month in the tenant's time zone: start of the
--       current one, of the next, of the one after; 8 request id; the rest belongs to the operation
--
-- Times are microseconds since 1970, money is micro-units. Numbers stay below 2^53, where doubles are exact.
-- A charge counts in the windows in which it is settled. A hold counts in every window while it lasts, so what is
-- settled after midnight was counted at every admission since, and no window goes over its limit.
local KEEP = 3600000000   -- how long a settled request is remembered; also the longest hold
local SLIP = 3600000000   -- a clock that steps back by less does not open the window before
local REAPED = 32         -- deadlines looked after per call
local PAGE = 500          -- fields per command: more would not fit on Lua's stack
local CROWDED = 10000     -- settled requests from which on they are remembered for less time, so that memory is bounded
local KEEP_LEAST = 600000000 -- twice as long as a caller asks for the request that it settled last
local SOON = 1000000      -- when to ask again while other calls' holds are in the way
local ADMITTED, REFUSED, WINDOWS, REBUILD, FINISHED = 1, 0, 2, 3, 4

local clock = redis.call('TIME') -- the one clock; nothing in ARGV can stand in for it
local now = clock[1] * 1000000 + clock[2]
local state, requests, deadlines, ledger = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local operation, id = ARGV[1], ARGV[8]

local function text(number)
  return string.format('%.0f', number)
end

-- The window of three boundaries that holds this moment.
local function window(index)
  local start, middle, finish = tonumber(ARGV[index]), tonumber(ARGV[index + 1]), tonumber(ARGV[index + 2])
  if now < start or now >= finish then
    return nil
  elseif now < middle then
    return {start, middle}
  end
  return {middle, finish}
end

local day, month = window(2), window(5)
if not day or not month then
  return {WINDOWS, now}
end

local ARRIVAL, DAY, MONTH, HELD_TOKENS, HELD_COST, ENTRIES, TOKENS, COST, NOTED = 1, 2, 6, 10, 11, 12, 13, 14, 15
local function fresh()
  -- arrival; day: start, end, tokens, cost; month: the same; held: tokens, cost; ever: entries, tokens, cost
  -- and, once there was something to note: tokens, money: the limit that a call did not fit, the end of its window
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
end

local function roll(scope, index, current)
  local start, finish = scope[index], scope[index + 1]
  if start == current[1] and finish == current[2] then
    return
  elseif current[1] >= finish then
    scope[index + 2], scope[index + 3] = 0, 0
  elseif now < start and start - now <= SLIP then
    return
  end -- else another time zone, or a clock set back: what was used stays used
  scope[index], scope[index + 1] = current[1], current[2]
end

local scopes, stored = {}, {}
local epoch -- as of the first `load`
local function load(names)
  local missing = {}
  for _, name in ipairs(names) do
    if not scopes[name] then
      missing[#missing + 1] = name
    end
  end
  if #missing == 0 then
    return
  end
  for first = 1, #missing, PAGE do
    local page = {unpack(missing, first, math.min(first + PAGE - 1, #missing))}
    page[#page + 1] = 'epoch'
    local values = redis.call('HMGET', state, unpack(page))
    epoch = epoch or tonumber(values[#page] or 0)
    page[#page] = nil
    for i, name in ipairs(page) do
      local scope = values[i] and cmsgpack.unpack(values[i]) or fresh()
      roll(scope, DAY, day)
      roll(scope, MONTH, month)
      scopes[name], stored[name] = scope, values[i]
    end
  end
end

local function save()
  local changes = {}
  for name, scope in pairs(scopes) do
    local value = cmsgpack.pack(scope)
    if value ~= stored[name] then
      changes[#changes + 1], changes[#changes + 2] = name, value
    end
  end
  for first = 1, #changes, 2 * PAGE do
    redis.call('HSET', state, unpack(changes, first, math.min(first + 2 * PAGE - 1, #changes)))
  end
end

-- Add a hold (sign 1) to its scopes or take it back (sign -1). What a lost store no longer knows cannot go below zero.
local function hold(record, sign)
  local names = {unpack(record, 3)}
  load(names)
  for _, name in ipairs(names) do
    local scope = scopes[name]
    scope[HELD_TOKENS] = math.max(0, scope[HELD_TOKENS] + sign * record[1])
    scope[HELD_COST] = math.max(0, scope[HELD_COST] + sign * record[2])
  end
end

local function forget(member)
  redis.call('ZREM', deadlines, member)
  redis.call('HDEL', requests, member)
end

-- Return whether any was taken away.
local function reap()
  local last = redis.call('ZREVRANGE', deadlines, 0, 0, 'WITHSCORES')
  if last[2] and tonumber(last[2]) > now + KEEP then -- the clock was set back: nothing may be held for months
    local late = {'(' .. text(now + KEEP), '+inf', 'LIMIT', 0, 1000} -- the rest with the next calls
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', deadlines, unpack(late))) do
      redis.call('ZADD', deadlines, text(now + KEEP), member)
    end
  end
  local due = redis.call('ZRANGEBYSCORE', deadlines, '-inf', text(now), 'LIMIT', 0, REAPED)
  for _, member in ipairs(due) do
    local value = redis.call('HGET', requests, member)
    local record = value and cmsgpack.unpack(value)
    if record and record[1] >= 0 then
      hold(record, -1)
    end
    forget(member)
  end
  return #due > 0
end

local function remember(record, deadline)
  redis.call('HSET', requests, id, cmsgpack.pack(record))
  redis.call('ZADD', deadlines, text(deadline), id)
end

-- How long a settled request is remembered: an hour, but less where there are very many.
local function keep()
  return #redis.call('ZREVRANGE', deadlines, CROWDED, CROWDED) > 0 and KEEP_LEAST or KEEP
end

local function known()
  local value = redis.call('HGET', requests, id)
  return value and cmsgpack.unpack(value)
end

local function read_epoch()
  return tonumber(redis.call('HGET', state, 'epoch') or 0)
end

-- ARGV: 9 epoch and 10 entries the caller knows of, 11 the request it settled last, 12 how long to hold, 13 tokens,
-- 14 cost; then per level: scope, interval and burst of its request rate (burst 0: none), tokens and money per window
-- (-1: none), day or month. What Redis loses is the end of its log: if that request is there, all before it is.
if operation == 'reserve' then
  local tokens, cost = tonumber(ARGV[13]), tonumber(ARGV[14])
  local levels, names, record = {}, {}, {tokens, cost}
  for i = 15, #ARGV, 6 do
    levels[#levels + 1] = {
      interval = tonumber(ARGV[i + 1]), burst = tonumber(ARGV[i + 2]),
      tokens = tonumber(ARGV[i + 3]), budget = tonumber(ARGV[i + 4]), period = ARGV[i + 5] == 'Day' and DAY or MONTH,
    }
    names[#names + 1], record[#record + 1] = ARGV[i], ARGV[i]
  end
  load(names[1] == 'tenant' and names or {'tenant', unpack(names)}) -- a lease is held on one level alone
  local witness, found = ARGV[11], redis.call('HMGET', requests, id, ARGV[11])
  local current, expected = epoch, tonumber(ARGV[9])
  local older = current < expected
  if current == expected then
    older = scopes['tenant'][ENTRIES] < tonumber(ARGV[10]) or witness ~= '' and not found[2]
  end
  if current == 0 or older then
    redis.call('HDEL', state, 'epoch') -- so that whoever knows less than this caller is refused as well
    return {REBUILD, now}
  end
  local before = found[1] and cmsgpack.unpack(found[1])
  if reap() then
    before = known()
  end
  if before and before[1] < 0 then
    save()
    return {FINISHED, now, before[2], before[3]}
  end
  local refusal
  local function refuse(level, kind, retry, limit, used)
    if not refusal or (refusal[5] >= 0 and (retry < 0 or retry > refusal[5])) then
      refusal = {REFUSED, now, level, kind, retry, limit, used}
    end
  end
  local function fit(i, kind, amount, limit, used, held, finish)
    if limit >= 0 and used + held + amount > limit then
      local retry = finish - now
      if amount > limit then
        retry = -1
      elseif used + amount <= limit then
        retry = math.min(retry, SOON)
      end
      refuse(i, kind, retry, limit, used + held)
    end
  end
  for i, level in ipairs(levels) do
    local scope = scopes[names[i]]
    level.arrival = scope[ARRIVAL]
    if level.burst > 0 then
      local capacity = level.interval * level.burst
      -- Further ahead than a full burst: left by a smaller limit, which was raised, or by a clock that jumped.
      if level.arrival < now or level.arrival > now + capacity then
        level.arrival = now
      end
      if not before then
        level.arrival = level.arrival + level.interval
        if level.arrival - capacity > now then
          refuse(i, 1, level.arrival - capacity - now, -1, -1)
        end
      end
    end
    if not before then
      fit(i, 2, tokens, level.tokens, scope[DAY + 2], scope[HELD_TOKENS], scope[DAY + 1])
      fit(i, 3, cost, level.budget, scope[level.period + 3], scope[HELD_COST], scope[level.period + 1])
    end
  end
  if refusal then
    save()
    return refusal
  end
  if not before then
    remember(record, now + math.min(tonumber(ARGV[12]), KEEP))
    hold(record, 1)
  end
  local reply = {ADMITTED, now, current, scopes['tenant'][ENTRIES]}
  for i, level in ipairs(levels) do
    local scope = scopes[names[i]]
    local left, reset, left_tokens, left_budget = -1, 0, -1, -1
    if level.burst > 0 then
      scope[ARRIVAL] = level.arrival
      left = math.max(0, math.floor((now + level.interval * level.burst - level.arrival) / level.interval))
      reset = level.arrival - now
    end
    if level.tokens >= 0 then
      left_tokens = math.max(0, level.tokens - scope[DAY + 2] - scope[HELD_TOKENS])
    end
    if level.budget >= 0 then
      left_budget = math.max(0, level.budget - scope[level.period + 3] - scope[HELD_COST])
    end
    for _, number in ipairs({left, reset, left_tokens, left_budget}) do
      reply[#reply + 1] = number
    end
  end
  save()
  return reply
end

-- ARGV: 9 tokens, 10 cost, 11 entry, then scopes. Takes the hold back, charges, and appends the entry, or nothing.
-- Never refused: what was used has been used, even when its hold expired or its store was lost.
if operation == 'settle' then
  local tokens, cost, entry, names = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11], {unpack(ARGV, 12)}
  local before = known()
  local again = before and before[1] < 0
  redis.call('HDEL', state, '') -- removes nothing; a script that has written is not stopped when memory is short
  load(names)
  local reaped = reap()
  local late = not before
  if again then
    tokens, cost, late = before[2], before[3], false
  else
    if reaped then -- it may have been taken back just now
      before = known()
    end
    if before then
      hold(before, -1)
    end
    late = not before
    for _, name in ipairs(names) do
      local scope = scopes[name]
      for _, index in ipairs({DAY, MONTH}) do
        scope[index + 2], scope[index + 3] = scope[index + 2] + tokens, scope[index + 3] + cost
      end
      scope[TOKENS], scope[COST] = scope[TOKENS] + tokens, scope[COST] + cost
      if entry ~= '' then
        scope[ENTRIES] = scope[ENTRIES] + 1
      end
    end
    if entry ~= '' then
      redis.call('XADD', ledger, '*', 'at', text(now), 'entry', entry)
    end
    remember({-1, tokens, cost}, now + keep())
  end
  local reply = {ADMITTED, now, epoch, scopes['tenant'][ENTRIES], again and 1 or 0, late and 1 or 0, tokens, cost}
  for _, name in ipairs(names) do
    for index = DAY, MONTH + 3 do
      reply[#reply + 1] = scopes[name][index]
    end
  end
  save()
  return reply
end

-- ARGV: 9 how long to hold from now, 10 tokens, 11 cost, then scopes. A hold that expired, or that a lost store no
-- longer knows, is put back: the call it stands for is under way, whether it fits or not.
if operation == 'renew' then
  local deadline = now + math.min(tonumber(ARGV[9]), KEEP)
  reap()
  local before = known()
  if before and before[1] < 0 then
    save()
    return {FINISHED, now, before[2], before[3]}
  elseif before then
    redis.call('ZADD', deadlines, 'XX', 'GT', text(deadline), id)
  else
    local record = {tonumber(ARGV[10]), tonumber(ARGV[11]), unpack(ARGV, 12)}
    remember(record, deadline)
    hold(record, 1)
  end
  save()
  return {ADMITTED, now, before and 0 or 1}
end

-- ARGV: 9 on: scopes; all of them where none is named, which takes long where there are thousands.
if operation == 'usage' then
  reap()
  local names = {unpack(ARGV, 9)}
  if #names == 0 then
    for _, name in ipairs(redis.call('HKEYS', state)) do
      if name ~= 'epoch' and name ~= 'restoring' then
        names[#names + 1] = name
      end
    end
  end
  load(names)
  save()
  local reply = {ADMITTED, now, read_epoch()}
  for name, scope in pairs(scopes) do
    reply[#reply + 1] = name
    for index = DAY, COST do
      reply[#reply + 1] = scope[index]
    end
  end
  return reply
end

-- ARGV: 9 scope, 10 2 (tokens) or 3 (money), 11 the budget's day or month, 12 the limit. A call did not fit the rest
-- of a limit: what is left of it in this window is too little for the calls that come, at every process.
if operation == 'note' then
  load({ARGV[9]})
  local scope = scopes[ARGV[9]]
  for index = #scope + 1, NOTED + 3 do
    scope[index] = 0
  end
  local index = NOTED + (ARGV[10] == '3' and 2 or 0)
  local window = (ARGV[10] == '2' or ARGV[11] == 'Day') and DAY or MONTH -- tokens are counted by the day
  scope[index], scope[index + 1] = tonumber(ARGV[12]), scope[window + 1]
  save()
  return {ADMITTED, now}
end

-- ARGV: 9 on: scopes. Per scope: its name; of tokens and of money: the limit that a call did not fit, and until when.
if operation == 'noted' then
  local names = {unpack(ARGV, 9)}
  load(names)
  local reply = {ADMITTED, now}
  for _, name in ipairs(names) do
    reply[#reply + 1] = name
    for index = NOTED, NOTED + 3 do
      reply[#reply + 1] = scopes[name][index] or 0
    end
  end
  return reply
end

-- ARGV: 9 1: also scopes that were used in this day or month; 10 on: scopes of assistants that are no more.
if operation == 'drop' then
  local names = {unpack(ARGV, 10)}
  load(names)
  local gone = {}
  for _, name in ipairs(names) do
    local scope = scopes[name]
    local used = scope[DAY + 2] + scope[DAY + 3] + scope[MONTH + 2] + scope[MONTH + 3]
    if scope[HELD_TOKENS] + scope[HELD_COST] == 0 and (used == 0 or ARGV[9] == '1') then
      gone[#gone + 1] = name
    end
  end
  for first = 1, #gone, PAGE do
    redis.call('HDEL', state, unpack(gone, first, math.min(first + PAGE - 1, #gone)))
  end
  return {ADMITTED, now, #gone}
end

-- The tenant is gone and its keys were removed, but a call that ended later brought some back. They are removed again,
-- once the ledger has the stream's entries. Counters with an epoch are those of a tenant that is there.
if operation == 'clear' then
  if read_epoch() > 0 then
    return {REFUSED, now}
  end
  redis.call('DEL', state, requests, deadlines)
  if redis.call('XLEN', ledger) > 0 then
    return {FINISHED, now}
  end
  redis.call('DEL', ledger)
  return {ADMITTED, now}
end

-- From here on nothing is admitted until the counters have been restored.
if operation == 'invalidate' then
  redis.call('HDEL', state, 'epoch')
  return {ADMITTED, now}
end

-- ARGV: 9 on: request id, tokens, cost of what the ledger holds as settled lately, so that it is not charged again.
if operation == 'recall' then
  for i = 9, #ARGV, 3 do
    id = ARGV[i]
    local before = known()
    if before and before[1] >= 0 then
      hold(before, -1)
    end
    remember({-1, tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])}, now + KEEP)
  end
  save()
  return {ADMITTED, now}
end

-- ARGV: 8 epoch, 9 last entry of the stream that the totals hold, then per scope: its name, tokens and cost of the day
-- and of the month, entries, tokens and cost ever. Holds that are known stay: their calls may be under way.
-- `restore` begins anew and ends at once. With many scopes it is done in pages: `begin`, `page` for each, `finish`;
-- until then nothing is admitted, and only the caller that began last can finish.
if operation == 'restore' or operation == 'begin' or operation == 'page' or operation == 'finish' then
  local first = operation == 'restore' or operation == 'begin'
  local current = read_epoch()
  if current > 0 then
    return {FINISHED, now, current} -- somebody else was faster
  elseif not first and redis.call('HGET', state, 'restoring') ~= id then
    return {REFUSED, now}
  elseif #redis.call('XREVRANGE', ledger, '+', '(' .. ARGV[9], 'COUNT', 1) > 0 then
    return {REFUSED, now}
  end
  local names = {}
  for i = 10, #ARGV, 8 do
    names[#names + 1] = ARGV[i]
  end
  load(names)
  for i = 10, #ARGV, 8 do
    local before, scope = scopes[ARGV[i]], fresh()
    scope[ARRIVAL] = before[ARRIVAL]
    if not first then
      scope[HELD_TOKENS], scope[HELD_COST] = before[HELD_TOKENS], before[HELD_COST]
    end
    scope[DAY], scope[DAY + 1], scope[MONTH], scope[MONTH + 1] = day[1], day[2], month[1], month[2]
    for offset, index in ipairs({DAY + 2, DAY + 3, MONTH + 2, MONTH + 3, ENTRIES, TOKENS, COST}) do
      scope[index] = tonumber(ARGV[i + offset])
    end
    scopes[ARGV[i]], stored[ARGV[i]] = scope, false
  end
  if first then
    redis.call('DEL', state)
    local records = redis.call('HGETALL', requests)
    for i = 2, #records, 2 do
      local record = cmsgpack.unpack(records[i])
      if record[1] >= 0 then
        hold(record, 1)
      end
    end
  end
  if operation == 'begin' then
    redis.call('HSET', state, 'restoring', id)
  elseif operation == 'finish' then
    redis.call('HDEL', state, 'restoring')
  end
  if operation == 'restore' or operation == 'finish' then
    redis.call('HSET', state, 'epoch', id)
  end
  save()
  return {ADMITTED, now, tonumber(id)}
end

return redis.error_reply('ERR unknown operation ' .. operation)
