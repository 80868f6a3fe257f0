#!lua
-- A connection becomes the owner of a record. KEYS[3] record, KEYS[4] devices.
-- record: '#owner', '#saved' once it was saved, '#granted <stream>' (put there by a lasting membership), and for each
-- stream "<epoch> <offset>". ARGV: generation node connection device meta_ms most.
-- Answers {previous owner or '', records given up, '#saved', '', stream, position, … if it was ever saved}.
--@common
if stale() then
  return STALE
end
local record = KEYS[3]
local answer = { redis.call('HGET', record, '#owner') or '', 0 }
redis.call('HSET', record, '#owner', ARGV[3])
local is_new = redis.call('SADD', KEYS[4], ARGV[4]) == 1
-- Devices whose record has ended go, a few at a time; else the set would only grow, and memberships look at all of it.
local records = string.sub(record, 1, #record - #ARGV[4])
for _, device in ipairs(redis.call('SRANDMEMBER', KEYS[4], 4)) do
  if redis.call('EXISTS', records .. device) == 0 then
    redis.call('SREM', KEYS[4], device)
  end
end
redis.call('PEXPIRE', record, ARGV[5])
redis.call('PEXPIRE', KEYS[4], ARGV[5])
-- More than a client may have: those go that will end first, as they were claimed or saved least recently.
local excess = redis.call('SCARD', KEYS[4]) - tonumber(ARGV[6])
if is_new and excess > 0 then
  local others = {}
  for _, device in ipairs(redis.call('SMEMBERS', KEYS[4])) do
    if device ~= ARGV[4] then
      others[#others + 1] = { redis.call('PTTL', records .. device), device }
    end
  end
  table.sort(others, function(one, other)
    return one[1] < other[1]
  end)
  for i = 1, math.min(excess, #others) do
    answer[2] = answer[2] + redis.call('DEL', records .. others[i][2])
    redis.call('SREM', KEYS[4], others[i][2])
  end
end
if redis.call('HEXISTS', record, '#saved') == 0 then
  return answer
end
answer[3] = '#saved'
answer[4] = ''
local all = redis.call('HGETALL', record)
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 1) ~= '#' then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = all[i + 1]
  end
end
return answer
