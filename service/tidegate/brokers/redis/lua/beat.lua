#!lua flags=allow-oom
-- A node is alive, and learns who else is. KEYS[3] infos, KEYS[4] events ('' keeps none), KEYS[5] those that died.
-- ARGV: generation node incarnation info roster_seen dead_ms channel events common_ms
-- Answers {writes, roster, now, then node, beat, roster seen of each}.
--@common
--@epochs
if stale() or redis.call('HGET', life, 'incarnation') ~= ARGV[3] then
  return STALE
end
local infos = KEYS[3]
local LOST_MS = 600000 -- so long it is known of a node that it died, and did not stop
local now = now_ms()
renew_common(now, tonumber(ARGV[9]), false)
redis.call('HSET', nodes, ARGV[2], int(now) .. ' ' .. ARGV[5])
redis.call('HSET', infos, ARGV[2], ARGV[4])
redis.call('PUBLISH', ARGV[7], '')
local answer = { writes(), redis.call('HGET', life, 'roster') or '0', int(now) }
local all = redis.call('HGETALL', nodes)
for i = 1, #all, 2 do
  local beat, seen = string.match(all[i + 1], '^(%d+) (%d+)$')
  if now - tonumber(beat) > tonumber(ARGV[6]) then
    redis.call('HDEL', nodes, all[i])
    redis.call('HDEL', infos, all[i])
    if ARGV[8] ~= '0' then
      redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[8], '*', 'event', 'lost', 'node', all[i])
      redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', int(now - LOST_MS))
      redis.call('ZADD', KEYS[5], int(now), all[i])
      redis.call('PEXPIRE', KEYS[5], int(LOST_MS))
    end
  else
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = beat
    answer[#answer + 1] = seen
  end
end
return answer
