#!lua
-- The forwarder is done with events, and keeps the lease.
-- KEYS: events, lease, forwarded, dead. ARGV: token, lease_ms, told, reason, then id and JSON of each event.
-- ``told``: how many missed ones the application has heard of now. ``reason``: why the events go to the dead letters,
-- empty where the application took them. Answers 1; 0 where the lease has gone, and then nothing was done.
local events, lease, forwarded, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local GROUP = 'forwarder'
if redis.call('GET', lease) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', lease, ARGV[2])
if ARGV[3] ~= '0' then
  redis.call('HINCRBY', forwarded, 'missed', '-' .. ARGV[3])
end
for i = 5, #ARGV, 2 do
  if ARGV[4] ~= '' then
    redis.call('XADD', dead, 'MAXLEN', '=', '10000', '*', 'id', ARGV[i], 'reason', ARGV[4], 'event', ARGV[i + 1])
  end
  redis.call('XACK', events, GROUP, ARGV[i])
end
return 1
