#!lua
-- A lasting membership begins or ends. KEYS[3] the client's groups, KEYS[4] its devices, KEYS[5] prefix of its records.
-- ARGV: generation node group most position. position '': it ends. Records that lack the group get it at the position.
-- Answers 1 where something changed, 0 where not, -1 where the client has ``most`` already.
--@common
if stale() then
  return STALE
end
local groups, group, position = KEYS[3], ARGV[3], ARGV[5]
local stream = 'group:' .. group
local changed
if position ~= '' then
  if redis.call('SISMEMBER', groups, group) == 0 and redis.call('SCARD', groups) >= tonumber(ARGV[4]) then
    return -1
  end
  changed = redis.call('SADD', groups, group)
else
  changed = redis.call('SREM', groups, group)
end
for _, device in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  local record = KEYS[5] .. device
  if position == '' then
    redis.call('HDEL', record, stream, '#granted ' .. stream)
  elseif redis.call('HEXISTS', record, '#saved') == 1 and redis.call('HSETNX', record, stream, position) == 1 then
    redis.call('HSET', record, '#granted ' .. stream, '1')
  end
end
return changed
