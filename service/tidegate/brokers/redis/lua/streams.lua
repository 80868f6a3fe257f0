-- One stream: KEYS[3] meta, KEYS[4] journal. An entry's id is "<offset>-<time, ms>".
-- meta: e its own part of the epoch, n top, g the generation that it was last pushed to in, p those before, b the top
-- when g began, o no message is older than this (ms), z own part of an earlier common epoch in which it began too.
local meta, journal = KEYS[3], KEYS[4]

-- The stream as it stands, without a write; nil where it is in the common epoch and that one's time is over.
-- new: it never had a message, or was forgotten. ends: when the common epoch's time does.
local function look(now)
  local m = redis.call('HMGET', meta, 'e', 'n', 'g', 'p', 'b', 'o', 'z')
  local s
  if not m[1] then
    local e, ends, earlier = common(now)
    if not e then
      return nil
    end
    s = { e = e, n = 0, g = ARGV[1], p = '', b = 0, o = 0, z = earlier, new = true, ends = ends }
  else
    s = { e = m[1], n = tonumber(m[2]), g = m[3], p = m[4], b = tonumber(m[5]), o = tonumber(m[6]), z = m[7] or '' }
    if s.g ~= ARGV[1] then
      -- Nothing was pushed to it since its generation ended: whatever generation came between had the same.
      local before = redis.call('HGET', life, 'before')
      s.p, s.b, s.z = s.g, s.n, ''
      if before and before ~= s.g then
        s.p = s.g .. ' ' .. before
      end
    end
  end
  s.epoch = ARGV[1] .. '.' .. s.e
  return s
end

-- Whether ``epoch`` was this stream's in an earlier generation.
local function was(s, epoch)
  for generation in string.gmatch(s.p, '%S+') do
    if epoch == generation .. '.' .. s.e then
      return true
    end
  end
  return false
end

-- Makes ready for a push. A stream takes the common epoch over only if it will be remembered until that one's time is
-- over. A journal without its meta is of a stream that was lost.
local function open(s, now, meta_ms)
  if s.new then
    if redis.call('DEL', journal) == 1 or now + tonumber(meta_ms) < s.ends then
      s.e, s.z = new_part(), ''
      s.epoch = ARGV[1] .. '.' .. s.e
    end
    redis.call('HSET', meta, 'e', s.e, 'n', '0', 'g', ARGV[1], 'p', '', 'b', '0', 'o', '0', 'z', s.z)
    redis.call('PEXPIRE', meta, meta_ms)
    return
  end
  if s.g ~= ARGV[1] then
    redis.call('HSET', meta, 'g', ARGV[1], 'p', s.p, 'b', int(s.b), 'z', s.z)
  end
  redis.call('PEXPIRE', meta, meta_ms, 'GT') -- never sooner than was promised
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

-- The oldest offset that is not too old (above the top: there is none), and no message from there on is older than the
-- second. The border is found by halving, because offsets are dense.
local function oldest_kept(s, now, age_ms)
  local low, time = first_from('-')
  if not low then
    return s.n + 1, now
  end
  if time + age_ms >= now then
    return low, time
  end
  local high, high_ms = s.n + 1, now
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    local _, t = first_from(int(middle))
    if t + age_ms >= now then
      high, high_ms = middle, t
    else
      low = middle
    end
  end
  return high, high_ms
end

-- Forgets what is older than age_ms. Looked at only when the oldest may have become too old.
local function forget_old(s, now, age_ms)
  if s.o + age_ms >= now then
    return
  end
  local oldest
  oldest, s.o = oldest_kept(s, now, age_ms)
  redis.call('XTRIM', journal, 'MINID', '=', int(oldest))
  redis.call('HSET', meta, 'o', int(s.o))
end
