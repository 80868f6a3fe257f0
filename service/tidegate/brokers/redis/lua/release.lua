#!lua
-- A connection that this node lost has left, unless another node has it. KEYS[3] its client's connections, KEYS[4...]
-- those present in its groups. ARGV: generation node connection. Answers 1 where it has left.
--@common
if stale() then
  return STALE
end
local node, connection = ARGV[2], ARGV[3]
local info = redis.call('HGET', KEYS[3], connection)
if not info then
  return 0
end
if cjson.decode(info).node ~= node then
  return -1
end
redis.call('HDEL', KEYS[3], connection)
for i = 4, #KEYS do
  redis.call('HDEL', KEYS[i], connection)
end
return 1
