#!lua flags=allow-oom
-- A node ends in an orderly way. Who is the last says farewell: all that was ever written is before this.
-- Source: docs/decisions/0084. KEYS[3] infos. ARGV: generation node incarnation channel farewell_ms.
-- farewell_ms: how long it may be believed; 0: not at all.
-- life has: parted, the farewell: "<when, ms> <until> <writes> <roster>"; unsaved: until when one might be believed
-- that is over, as long as it is not known that the disk has that.
--@common
if stale() then
  return STALE
end
redis.call('HDEL', nodes, ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('PUBLISH', ARGV[4], 'roster') -- or it would be asked for a vote
local lasts_ms = tonumber(ARGV[5])
if lasts_ms == 0 or redis.call('EXISTS', nodes) == 1 or redis.call('HGET', life, 'incarnation') ~= ARGV[3] then
  return 0
end
local now = now_ms()
local roster = redis.call('HGET', life, 'roster') or '0'
redis.call('HSET', life, 'parted', int(now) .. ' ' .. int(now + lasts_ms) .. ' ' .. writes() .. ' ' .. roster)
return 1
