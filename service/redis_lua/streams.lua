-- One stream: KEYS[3] meta, KEYS[4] journal. An entry's id is "<offset>-<time, ms>".
-- meta: e its own part of the epoch, n top, g the generation that it was last used in, p the one before, b the top when
-- g began, o no message is older than this (ms).
local meta, journal = KEYS[3], KEYS[4]

local function base36(number)
  local digits = ''
  repeat
    local digit = number % 36
    digits = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. digits
    number = math.floor(number / 36)
  until number == 0
  return digits
end

-- The stream, created if need be. A journal without its meta is of a stream that was lost.
local function open(meta_ms)
  local m = redis.call('HMGET', meta, 'e', 'n', 'g', 'p', 'b', 'o')
  local s = { e = m[1], n = tonumber(m[2] or '0'), p = m[4] or '', b = tonumber(m[5] or '0'), o = tonumber(m[6] or '0') }
  if not s.e then
    redis.call('DEL', journal)
    s.e = base36(redis.call('HINCRBY', life, 'writes', 1))
    s.n, s.p, s.b, s.o = 0, '', 0, 0
    redis.call('HSET', meta, 'e', s.e, 'n', '0', 'g', ARGV[1], 'p', '', 'b', '0', 'o', '0')
  elseif m[3] ~= ARGV[1] then
    s.p, s.b = m[3], s.n
    redis.call('HSET', meta, 'g', ARGV[1], 'p', s.p, 'b', int(s.b))
  end
  redis.call('PEXPIRE', meta, meta_ms)
  s.epoch = ARGV[1] .. '.' .. s.e
  return s
end

local function place(id)
  local offset, time = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(offset), tonumber(time)
end

local function first_from(id)
  local entry = redis.call('XRANGE', journal, id, '+', 'COUNT', 1)[1]
  if entry then
    return place(entry[1])
  end
end

-- Forgets what is older than age_ms. Looked at only when the oldest may have become too old; the border is found by
-- halving, because offsets are dense.
local function forget_old(s, now, age_ms)
  if s.o + age_ms >= now then
    return
  end
  local low, time = first_from('-')
  if not low then
    s.o = now
  elseif time + age_ms >= now then
    s.o = time
  else
    local high = s.n + 1
    s.o = now
    while high - low > 1 do
      local middle = math.floor((low + high) / 2)
      local _, t = first_from(int(middle))
      if t + age_ms >= now then
        high, s.o = middle, t
      else
        low = middle
      end
    end
    redis.call('XTRIM', journal, 'MINID', '=', int(high))
  end
  redis.call('HSET', meta, 'o', int(s.o))
end
