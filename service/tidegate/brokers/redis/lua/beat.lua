#!lua flags=allow-oom
-- A node is alive, and learns who else is. KEYS[3] infos, KEYS[4] events ('' keeps none), KEYS[5] those that died.
-- ARGV: generation node incarnation info roster_seen dead_ms prefix events common_ms gone_ms saved
-- saved: what unsaved of leave.lua is, where the disk has what came after; else ''.
-- life has: beats, how many there were; beaten, when the last was (ms); gone, the newest last beat of those whose
-- process had ended. Answers {writes, roster, now, beats, gone, then node, beat, roster seen of each}.
-- Source: docs/decisions/0018.
--@common
--@epochs
if stale() or redis.call('HGET', life, 'incarnation') ~= ARGV[3] then
  return STALE
end
local infos, prefix = KEYS[3], ARGV[7]
local dead_ms, gone_ms = tonumber(ARGV[6]), tonumber(ARGV[10])
local LOST_MS = 600000 -- so long it is known of a node that it died, and did not stop
local now = now_ms()

-- Where a node listens for its own beats, as long as its process lives.
local function pulse(node)
  return prefix .. ':{node:' .. node .. '}:pulse'
end
local function listens(node)
  local count = redis.pcall('PUBSUB', 'NUMSUB', pulse(node))
  return count.err or count[2] > 0
end

renew_common(now, tonumber(ARGV[9]), false)
if ARGV[11] ~= '' and redis.call('HGET', life, 'unsaved') == ARGV[11] then
  redis.call('HDEL', life, 'unsaved')
end
redis.call('HSET', nodes, ARGV[2], int(now) .. ' ' .. ARGV[5])
redis.call('HSET', infos, ARGV[2], ARGV[4])
redis.call('PUBLISH', pulse(ARGV[2]), '')
local l = redis.call('HMGET', life, 'beaten', 'beats', 'gone')
local beaten, beats, gone = tonumber(l[1] or now), tonumber(l[2] or 0) + 1, math.min(tonumber(l[3] or 0), now)
local nobody_could = now - beaten > gone_ms -- Redis was away, or its clock went on: silence says nothing
local answer = { writes(), redis.call('HGET', life, 'roster') or '0', int(now), int(beats), '' }
local all = redis.call('HGETALL', nodes)
for i = 1, #all, 2 do
  local node = all[i]
  local beat, seen = string.match(all[i + 1], '^(%d+) (%d+)$')
  beat = tonumber(beat)
  if nobody_could or beat > now then -- or the clock went back
    beat = now
    redis.call('HSET', nodes, node, int(now) .. ' ' .. seen)
  end
  local has_gone = now - beat > gone_ms and not listens(node)
  if has_gone then
    gone = math.max(gone, beat)
  end
  if has_gone or now - beat > dead_ms then
    redis.call('HDEL', nodes, node)
    redis.call('HDEL', infos, node)
    if ARGV[8] ~= '0' then
      redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[8], '*', 'event', 'lost', 'node', node)
      redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', int(now - LOST_MS))
      redis.call('ZADD', KEYS[5], int(now), node)
      redis.call('PEXPIRE', KEYS[5], int(LOST_MS))
    end
  else
    answer[#answer + 1] = node
    answer[#answer + 1] = int(beat)
    answer[#answer + 1] = seen
  end
end
redis.call('HSET', life, 'beaten', int(now), 'beats', int(beats), 'gone', int(gone))
answer[5] = int(gone)
return answer
