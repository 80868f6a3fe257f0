#!lua
-- Replaces a record if its owner is still the same. KEYS[3] record, KEYS[4] devices.
-- ARGV: generation node connection meta_ms, then stream, position of each. Answers 1, or 0 where another owns it.
--@common
if stale() then
  return STALE
end
local record, owner = KEYS[3], ARGV[3]
if redis.call('HGET', record, '#owner') ~= owner then
  return 0
end
local all = redis.call('HGETALL', record)
local kept = {}
for i = 1, #all, 2 do
  local granted = string.match(all[i], '^#granted (.+)$')
  if granted then
    kept[granted] = redis.call('HGET', record, granted)
  end
end
redis.call('DEL', record)
redis.call('HSET', record, '#owner', owner, '#saved', '1')
for i = 5, #ARGV, 2 do
  redis.call('HSET', record, ARGV[i], ARGV[i + 1])
  kept[ARGV[i]] = nil -- the connection has joined it
end
for stream, position in pairs(kept) do
  redis.call('HSET', record, stream, position, '#granted ' .. stream, '1')
end
redis.call('PEXPIRE', record, ARGV[4])
redis.call('PEXPIRE', KEYS[4], ARGV[4])
return 1
