#!lua flags=allow-oom
-- What waits in the ingress. KEYS[3] push, KEYS[4] rejected. Answers {entries, rejected ones, ms since the oldest came,
-- as its id says}. Of that one no more than its id leaves Redis: it may be large. Writes nothing.
--@common
if stale() then
  return STALE
end
local oldest = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
local age_ms = oldest and now_ms() - tonumber(string.match(oldest[1], '^%d+')) or 0
return { redis.call('XLEN', KEYS[3]), redis.call('XLEN', KEYS[4]), int(math.max(age_ms, 0)) }
