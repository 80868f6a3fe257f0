#!lua
-- Journals messages of one stream in order: deduplicate, offset, append, trim, wake up.
-- KEYS[5] the ingress lease, then a key for each message that has a digest.
-- ARGV: generation node channel messages age_ms meta_ms key_ms token, then per message: data client digest conflate
-- traceparent.
-- key_ms 0: keys stay until they are deleted. token: refused unless the lease holds it; '' asks for none.
-- Answers "<writes> <epoch>" and for each message "+<offset>", "=<offset>" (a repeat), "!" (key reused),
-- "-<error>" (and nothing after it was tried).
--@common
--@epochs
--@streams
if stale() then
  return STALE
end
if ARGV[8] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[8] then
  return { err = 'FENCED another node reads the ingress' }
end
local channel, most, age_ms, key_ms = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[7]
local now = now_ms()
local s = look(now)
if not s then
  return STALE
end
open(s, now, ARGV[6])
local answers, next_key, count = { '' }, 6, nil

for i = 9, #ARGV, 5 do
  local data, client, digest, conflate = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local traceparent = ARGV[i + 4]
  local key, known
  if digest ~= '' then
    key = KEYS[next_key]
    next_key = next_key + 1
    local d, e, offset = string.match(redis.call('GET', key) or '', '^(%S+) (%S+) (%d+)$')
    if e == s.e and tonumber(offset) <= s.n then -- else what it stands for was lost with its stream
      known = d == digest and '=' .. offset or '!'
    end
  end
  if known then
    answers[#answers + 1] = known
  else
    local offset = int(s.n + 1)
    local fields = { 'd', data }
    if client ~= '' or conflate ~= '' or traceparent ~= '' then
      fields[3], fields[4] = 'c', client -- before the word, where earlier versions look for it
    end
    if conflate ~= '' or traceparent ~= '' then
      fields[5], fields[6] = 'k', conflate
    end
    if traceparent ~= '' then
      fields[7], fields[8] = 't', traceparent -- for who asks for this entry: no wake-up has it
    end
    if conflate ~= '' then
      client = client .. ' ' .. conflate
    end
    local added = redis.pcall('XADD', journal, 'MAXLEN', '=', most, offset .. '-' .. int(now), unpack(fields))
    if type(added) == 'table' and added.err then
      answers[#answers + 1] = '-' .. added.err
      break
    end
    s.n = s.n + 1
    redis.call('HSET', meta, 'n', offset)
    count = redis.call('HINCRBY', life, 'writes', 1)
    if key then
      if key_ms == '0' then
        redis.call('SET', key, digest .. ' ' .. s.e .. ' ' .. offset)
      else
        redis.call('SET', key, digest .. ' ' .. s.e .. ' ' .. offset, 'PX', key_ms)
      end
    end
    redis.call('PUBLISH', channel,
      s.epoch .. ' ' .. offset .. ' ' .. int(now) .. ' ' .. int(count) .. ' ' .. client .. '\n' .. data)
    answers[#answers + 1] = '+' .. offset
  end
end

if count then
  if s.o == 0 then
    s.o = now
    redis.call('HSET', meta, 'o', int(now))
  end
  forget_old(s, now, age_ms)
  redis.call('PEXPIRE', journal, int(age_ms))
end
answers[1] = (count and int(count) or writes()) .. ' ' .. s.epoch
return table.concat(answers, '\n')
