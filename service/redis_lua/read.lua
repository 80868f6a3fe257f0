#!lua flags=allow-oom
-- What follows a position, oldest first; creates the stream if need be.
-- ARGV: generation node meta_ms age_ms epoch offset messages size. Epoch '': from the oldest kept.
-- Answers {"<writes> <epoch> <top> <start> <gap>", then id, data, client of each message}; gap is - reset expired.
-- Not flagged no-writes: a replica must refuse it.
--@common
--@streams
if stale() then
  return STALE
end
local epoch, offset = ARGV[5], tonumber(ARGV[6])
local messages, size = tonumber(ARGV[7]), tonumber(ARGV[8])
local s = open(ARGV[3])
forget_old(s, now_ms(), tonumber(ARGV[4]))
local answer = { '' }
local gap = '-'
local start = s.n
if epoch ~= '' or messages > 0 then
  local oldest = first_from('-')
  local before = oldest and oldest - 1 or s.n
  start = before
  if epoch == s.epoch and offset <= s.n then
    start = math.max(offset, before)
    gap = offset < before and 'expired' or '-'
  elseif epoch ~= '' then
    gap = 'reset'
    -- Of the generation before this one everything up to b is still the same: no need to tell it again.
    if epoch == s.p .. '.' .. s.e then
      start = math.max(math.min(offset, s.b), before)
    end
  end
end
local at = start
while messages > 0 and size > 0 and at < s.n do
  local entries = redis.call('XRANGE', journal, int(at + 1), '+', 'COUNT', math.min(messages, 32))
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    size = size - #fields[2]
    if size < 0 and #answer > 1 then
      break
    end
    answer[#answer + 1] = entry[1]
    answer[#answer + 1] = fields[2]
    answer[#answer + 1] = fields[4] or ''
    messages = messages - 1
    at = place(entry[1])
  end
  if #entries == 0 then
    break
  end
end
answer[1] = writes() .. ' ' .. s.epoch .. ' ' .. int(s.n) .. ' ' .. int(start) .. ' ' .. gap
return answer
