#!lua flags=allow-oom
-- What follows a position, oldest first. Writes nothing.
-- ARGV: generation node age_ms epoch offset messages size. Epoch '': from the oldest kept.
-- Answers {"<writes> <epoch> <top> <start> <gap>", then id, data, client, conflate of each message}; gap is - reset
-- expired.
-- Not flagged no-writes: a replica must refuse it.
--@common
--@epochs
--@streams
local now = now_ms()
local s = not stale() and look(now)
if not s then
  return STALE
end
local epoch, offset = ARGV[4], tonumber(ARGV[5])
local messages, size = tonumber(ARGV[6]), tonumber(ARGV[7])
local answer = { '' }
local gap = '-'
local start = s.n
if epoch ~= '' or messages > 0 then
  local before = s.new and 0 or oldest_kept(s, now, tonumber(ARGV[3])) - 1
  start = before
  if offset == 0 and s.z ~= '' and epoch == ARGV[1] .. '.' .. s.z then
    epoch = s.epoch
  end
  if epoch == s.epoch and offset <= s.n then
    start = math.max(offset, before)
    gap = offset < before and 'expired' or '-'
  elseif epoch ~= '' then
    gap = 'reset'
    -- Of an earlier generation everything up to b is still the same: no need to tell it again.
    if was(s, epoch) then
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
    answer[#answer + 1] = fields[6] or ''
    messages = messages - 1
    at = place(entry[1])
  end
  if #entries == 0 then
    break
  end
end
answer[1] = writes() .. ' ' .. s.epoch .. ' ' .. int(s.n) .. ' ' .. int(start) .. ' ' .. gap
return answer
