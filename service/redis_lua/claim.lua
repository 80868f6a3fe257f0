#!lua
-- A connection becomes the owner of a record. KEYS[3] record, KEYS[4] devices.
-- record: '#owner', '#saved' once it was saved, '#granted <stream>' (put there by a lasting membership), and for each
-- stream "<epoch> <offset>". ARGV: generation node connection device meta_ms.
-- Answers {previous owner or '', stream, position, … if it was ever saved}.
--@common
if stale() then
  return STALE
end
local record = KEYS[3]
local answer = { redis.call('HGET', record, '#owner') or '' }
redis.call('HSET', record, '#owner', ARGV[3])
redis.call('SADD', KEYS[4], ARGV[4])
redis.call('PEXPIRE', record, ARGV[5])
redis.call('PEXPIRE', KEYS[4], ARGV[5])
if redis.call('HEXISTS', record, '#saved') == 0 then
  return answer
end
answer[2] = '#saved'
answer[3] = ''
local all = redis.call('HGETALL', record)
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 1) ~= '#' then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = all[i + 1]
  end
end
return answer
