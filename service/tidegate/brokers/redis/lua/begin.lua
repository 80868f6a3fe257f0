#!lua flags=allow-oom
-- A node comes, or comes back, to this server. Source: docs/decisions/0010.
-- KEYS[3] infos: node -> what /api/nodes says of it. KEYS[4] votes on this incarnation.
-- ARGV: candidate node incarnation known_generation known_writes sure members info vote_ms channel common_ms
-- synced_beats believes. sure: 1, 0, or synced where that has to do. synced_beats: how many there were when it was last
-- answered, if the server synced before that; '' if not. believes: 1 if the server's data could be no other's.
-- Answers {outcome, generation, writes, roster, now, why it was lost, unsaved}. outcome: new, kept (the server changed,
-- its data is whole), lost (generation changed), same, wait (ask again). roster: the node's number if it joined just
-- now, else 0. unsaved: as in leave.lua; where it is not '' the node serves nothing before the disk has all of this.
--@common
--@epochs
local infos, votes = KEYS[3], KEYS[4]
local candidate, node, incarnation, known = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = now_ms()
local l = redis.call('HMGET', life, 'generation', 'incarnation')
local generation = l[1]
local count = tonumber(writes())
local outcome, why = 'same', ''
-- Whether nothing can be missing, whoever wrote it. Source: docs/decisions/0018.
local synced = ARGV[12] ~= '' and tonumber(ARGV[12]) <= tonumber(redis.call('HGET', life, 'beats') or '0')

-- Who has not voted, of those who must; nil where nobody has.
local function missing()
  local needed = {}
  for _, member in ipairs(redis.call('HKEYS', nodes)) do
    needed[member] = true
  end
  local given = redis.call('HGETALL', votes)
  local voted = false
  for i = 1, #given, 2 do
    if string.sub(given[i], 1, 1) ~= ':' then
      voted = true
      for member in string.gmatch(given[i + 1], '%S+') do
        needed[member] = true
      end
    end
  end
  for i = 1, #given, 2 do
    needed[given[i]] = nil
  end
  local names = {}
  for member in pairs(needed) do
    names[#names + 1] = member
  end
  table.sort(names)
  return voted and table.concat(names, ' ') or nil
end

-- Whether nobody has been on the roster since the farewell: by its numbers, for 0.2.0 joins and leaves it as it is.
local parted = redis.call('HGET', life, 'parted')
local function nothing_came_after()
  local said, till, count_then, roster = string.match(parted or '', '^(%d+) (%d+) (%d+) (%d+)$')
  return said and tonumber(said) <= now and now <= tonumber(till) and tonumber(count_then) == count
    and roster == redis.call('HGET', life, 'roster') and redis.call('EXISTS', nodes) == 0
end

if not generation then
  outcome = 'new'
elseif l[2] ~= incarnation then
  local contradicts = known ~= '' and (known ~= generation or tonumber(ARGV[5]) > count)
  if ARGV[13] == '1' and not contradicts and nothing_came_after() then
    outcome = 'kept'
  elseif known == '' then -- it remembers nothing: others may
    outcome = (redis.call('EXISTS', nodes) + redis.call('EXISTS', votes)) > 0 and 'wait' or 'lost'
    why = 'nobody remembers'
  elseif known == generation and (ARGV[6] == '1' or ARGV[6] == 'synced' and synced) and tonumber(ARGV[5]) <= count then
    redis.call('HSET', votes, node, ARGV[7])
    if synced then
      redis.call('HSET', votes, ':synced', '') -- empty: 0.2.0 takes it for a vote that names nobody
    end
    outcome = missing() == '' and 'kept' or 'wait'
  else
    outcome = 'lost'
    why = known ~= generation and 'another generation' or ARGV[6] == '0' and 'unsure' or 'writes are missing'
  end
  if outcome == 'wait' then
    redis.call('HSETNX', votes, ':since', int(now))
    redis.call('PEXPIRE', votes, 60000)
    local since = tonumber(redis.call('HGET', votes, ':since'))
    if since > now then -- the clock went back
      redis.call('HSET', votes, ':since', int(now))
      since = now
    end
    if now - since < tonumber(ARGV[9]) then
      return { 'wait', generation, int(count), 0, int(now) }
    end
    outcome = redis.call('HEXISTS', votes, ':synced') == 1 and 'kept' or 'lost'
    local names = missing()
    why = names and 'no word of ' .. names or 'nobody remembers'
  end
elseif known == generation and tonumber(ARGV[5]) > count then
  outcome, why = 'lost', 'writes are missing' -- the same server, with older data
end

if outcome == 'new' or outcome == 'lost' then
  if generation then
    redis.call('HSET', life, 'before', generation)
  end
  generation = candidate
  redis.call('DEL', nodes, infos)
end
renew_common(now, tonumber(ARGV[11]), generation == candidate)
if outcome == 'kept' then -- their beats are as old as the data
  for _, member in ipairs(redis.call('HKEYS', nodes)) do
    local seen = string.match(redis.call('HGET', nodes, member), ' (%d+)$')
    redis.call('HSET', nodes, member, int(now) .. ' ' .. seen)
  end
end
if outcome ~= 'same' then
  redis.call('HSET', life, 'generation', generation, 'incarnation', incarnation)
  redis.call('DEL', votes)
end
if parted then -- it is over; and so it must be on the disk, or it would be believed again
  redis.call('HDEL', life, 'parted')
  redis.call('HSET', life, 'unsaved', string.match(parted, '^%d+ (%d+)') or '0')
end
local joined = 0
local beat = redis.call('HGET', nodes, node)
if beat then
  beat = int(now) .. ' ' .. string.match(beat, ' (%d+)$')
else
  joined = redis.call('HINCRBY', life, 'roster', 1)
  redis.call('PUBLISH', ARGV[10], 'roster')
  beat = int(now) .. ' ' .. int(joined)
end
redis.call('HSET', nodes, node, beat)
redis.call('HSET', infos, node, ARGV[8])
return { outcome, generation, writes(), joined, int(now), why, redis.call('HGET', life, 'unsaved') or '' }
