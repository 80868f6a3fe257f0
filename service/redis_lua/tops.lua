#!lua flags=allow-oom
-- Which of these streams are not where the node has heard them. They are kept, but none is created: a read does that.
-- KEYS: life nodes, then the meta of each. ARGV: generation node, then of each: meta_ms epoch offset.
-- Answers their numbers, from 1; one that cannot be read is among them.
-- Not flagged no-writes: a replica must refuse it.
--@common
if stale() then
  return STALE
end
local differ = {}
for i = 1, #KEYS - 2 do
  local meta, at = KEYS[i + 2], i * 3
  local m = redis.pcall('HMGET', meta, 'e', 'n', 'g')
  redis.call('PEXPIRE', meta, ARGV[at])
  if m.err or m[3] ~= ARGV[1] or ARGV[1] .. '.' .. m[1] ~= ARGV[at + 1] or m[2] ~= ARGV[at + 2] then
    differ[#differ + 1] = i
  end
end
return differ
