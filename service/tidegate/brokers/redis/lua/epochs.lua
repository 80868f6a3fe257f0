-- Epochs: "<generation>.<own part>". A stream without a message is at offset 0 of the common one, which is in life:
-- common its own part, until when it may be told or taken over (ms), earlier and earlier_until: the one before.
-- Whatever took one over is remembered until then at least, so a stream of which nothing is known had no message in it.
-- Source: docs/decisions/0013.
local function base36(number)
  local digits = ''
  repeat
    local digit = number % 36
    digits = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. digits
    number = math.floor(number / 36)
  until number == 0
  return digits
end

local function new_part()
  return base36(redis.call('HINCRBY', life, 'writes', 1))
end

-- Its own part, when its time ends, and the earlier one that is as good ('' for none); nil where its time is over,
-- until a node begins or beats again.
local function common(now)
  local c = redis.call('HMGET', life, 'common', 'until', 'earlier', 'earlier_until')
  if not c[1] or now >= tonumber(c[2]) then
    return nil
  end
  return c[1], tonumber(c[2]), c[3] and now < tonumber(c[4]) and c[3] or ''
end

-- Changes the common epoch when half of its time is over, or where all epochs change (anew).
local function renew_common(now, lasts_ms, anew)
  local c = redis.call('HMGET', life, 'common', 'until')
  if not anew and c[1] and tonumber(c[2]) - now >= lasts_ms / 2 then
    return
  end
  if anew or not c[1] then
    redis.call('HDEL', life, 'earlier', 'earlier_until')
  else
    redis.call('HSET', life, 'earlier', c[1], 'earlier_until', c[2])
  end
  redis.call('HSET', life, 'common', new_part(), 'until', int(now + lasts_ms))
end
