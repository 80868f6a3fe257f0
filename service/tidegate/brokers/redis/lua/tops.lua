#!lua flags=allow-oom
-- Which of these streams are not where the node has heard them. They are kept; none is created.
-- KEYS: life nodes, then the meta of each. ARGV: generation node, then of each: meta_ms epoch offset.
-- Answers the common epoch, then their numbers, from 1; one that cannot be read is among them. A negative number: it
-- never had a message, and was heard at the beginning of the earlier common epoch.
-- Not flagged no-writes: a replica must refuse it.
--@common
--@epochs
local e, _, earlier = common(now_ms())
if stale() or not e then
  return STALE
end
local beginning = ARGV[1] .. '.' .. e
local answer = { beginning }
for i = 1, #KEYS - 2 do
  local meta, at = KEYS[i + 2], i * 3
  local epoch, offset = ARGV[at + 1], ARGV[at + 2]
  local m = redis.pcall('HMGET', meta, 'e', 'n')
  redis.call('PEXPIRE', meta, ARGV[at], 'GT')
  if m.err then
    answer[#answer + 1] = i
  elseif not m[1] then
    if offset == '0' and earlier ~= '' and epoch == ARGV[1] .. '.' .. earlier then
      answer[#answer + 1] = -i
    elseif offset ~= '0' or epoch ~= beginning then
      answer[#answer + 1] = i
    end
  elseif ARGV[1] .. '.' .. m[1] ~= epoch or m[2] ~= offset then
    answer[#answer + 1] = i
  end
end
return answer
