#!lua flags=allow-oom
-- One message as its journal has it, with what no wake-up says. Writes nothing.
-- ARGV: generation node age_ms epoch offset. Answers {id, data, client, conflate, traceparent}, or nothing where the
-- journal does not have it (any more), or is of another epoch.
--@common
--@epochs
--@streams
local now = now_ms()
local s = not stale() and look(now)
if not s then
  return STALE
end
local entry = s.epoch == ARGV[4] and redis.call('XRANGE', journal, ARGV[5], ARGV[5], 'COUNT', 1)[1]
if not entry or tonumber(ARGV[5]) < oldest_kept(s, now, tonumber(ARGV[3])) then
  return {}
end
local fields = entry[2]
return { entry[1], fields[2], fields[4] or '', fields[6] or '', fields[8] or '' }
