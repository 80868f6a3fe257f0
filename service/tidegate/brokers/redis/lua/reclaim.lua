#!lua
-- A connection that has moved owns its record as before, under another name. KEYS[3] record.
-- ARGV: generation node connection owner meta_ms. Answers {1, stream, position, ...}, or {0} where another owns it, or
-- a later term: it has moved on meanwhile. One that was forgotten is begun anew. An owner is a connection, or one with
-- '#' and its term.
--@common
if stale() then
  return STALE
end
local record, connection = KEYS[3], ARGV[3]
local function term(owner)
  if owner == connection then
    return 0
  end
  return string.sub(owner, 1, #connection + 1) == connection .. '#' and tonumber(string.sub(owner, #connection + 2))
end
local owner = redis.call('HGET', record, '#owner')
local before = owner and term(owner)
if owner and (not before or before > term(ARGV[4])) then
  return { 0 }
end
redis.call('HSET', record, '#owner', ARGV[4])
redis.call('PEXPIRE', record, ARGV[5])
local answer = { 1 }
local all = redis.call('HGETALL', record)
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 1) ~= '#' then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = all[i + 1]
  end
end
return answer
