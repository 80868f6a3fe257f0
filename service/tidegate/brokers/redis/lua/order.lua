#!lua
-- Journals an order and wakes all nodes. KEYS[3] orders. ARGV: generation node channel order
--@common
if stale() then
  return STALE
end
redis.call('PUBLISH', ARGV[3], '')
local number = int(redis.call('HINCRBY', life, 'orders', 1)) -- dense: who misses one knows
return redis.call('XADD', KEYS[3], 'MAXLEN', '~', '10000', '*', 'n', number, 'o', ARGV[4])
