-- Request rates of one call, all levels in one step (GCRA, the generic cell rate algorithm, ITU-T I.371).
--
-- KEYS[i]        theoretical arrival time of level i, microseconds since 1970
-- ARGV[2i - 1]   microseconds between two requests of level i at its sustained rate
-- ARGV[2i]       how many requests level i lets through at once
-- returns        {allowed, level, remaining, reset, retry}
--   level        1-based: the one that refuses longest, or the one with the fewest requests left
--   reset, retry microseconds until the level is at rest, until a refused request would be let through
--
-- Nothing is taken from any level when one refuses.
if #KEYS == 0 then
  return {1, 0, 0, 0, 0}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local arrivals = {}
local level, remaining, reset, retry = 1, math.huge, 0, 0
for i = 1, #KEYS do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local arrival = tonumber(redis.call('GET', KEYS[i]) or now)
  -- Further ahead than a full burst: left by a smaller limit or another clock. It would lock the tenant out.
  if arrival < now or arrival > now + interval * burst then
    arrival = now
  end
  local wait = arrival + interval - interval * burst - now
  if wait > retry then
    level, remaining, reset, retry = i, 0, arrival - now, wait
  elseif retry == 0 then
    local left = math.floor(burst - (arrival + interval - now) / interval)
    if left < remaining then
      level, remaining, reset = i, left, arrival + interval - now
    end
  end
  arrivals[i] = arrival + interval
end
if retry > 0 then
  return {0, level, 0, reset, retry}
end
for i = 1, #KEYS do
  redis.call('SET', KEYS[i], string.format('%.0f', arrivals[i]), 'PX', math.ceil((arrivals[i] - now) / 1000) + 1)
end
return {1, level, remaining, reset, 0}
