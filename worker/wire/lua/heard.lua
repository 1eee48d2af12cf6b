-- What a heartbeat does that is accepted; the script that accepts it comes after this.
-- Before it come, as local variables, keys, names of fields and times (`registration/heartbeats.py`):
-- none is sent with each heartbeat, as over a metered link headers and names would be all that is sent.

-- No run is looked at later than this from now.
local FARTHEST_S = 60

local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6

-- When a node was last heard, and how long ago that is; nil for both where it never was.
local function heard_at(name)
  local seen = redis.call('ZSCORE', NODES, name)
  return seen, seen and seconds - tonumber(seen)
end

-- The clock was set back when this node was heard in the future: so was any that is dead, and what is
-- due later waits for as long. All that is brought to now.
local function clock_went_back()
  for key, after in pairs({[NODES] = seconds, [RUNS_OPEN] = seconds + FARTHEST_S}) do
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, string.format('(%.6f', after), '+inf')) do
      redis.call('ZADD', key, seconds, member)
    end
  end
end

-- No node was heard for long: it was Redis that was away, could not be reached, or had its clock set.
-- The others get time to report before any of them is lost.
local function note_back(silent_s)
  local went_back = silent_s and silent_s < -1
  if went_back then clock_went_back() end
  local newest = (not silent_s or silent_s > AWAY_S)
    and redis.call('ZREVRANGE', NODES, 0, 0, 'WITHSCORES')[2]
  if went_back or (newest and seconds - tonumber(newest) > AWAY_S) then
    redis.call('SET', BACK, seconds, 'EX', 2 * ALIVE_S)
  end
end

-- RQ forgets its worker unless that is renewed, for as long as the node counts as alive; false where it
-- has been forgotten, and with one heartbeat of three where part of it has, or other things lie there.
local function renew(worker, registered)
  if redis.call('EXPIRE', worker, ALIVE_S) == 0 then return false end
  if seconds % ALIVE_S >= BEAT_S then return true end
  if redis.pcall('HEXISTS', worker, 'birth') ~= 1 then return false end
  for _, one in ipairs(redis.pcall('SMEMBERS', registered)) do
    if one == worker then return true end
  end
  return false
end

local function has_job(queue)
  local length = redis.pcall('LLEN', queue)
  return type(length) == 'number' and length > 0
end

-- Note that a node was heard. Returns the microseconds of Redis' clock, or, where there is more to say,
-- a list of them, of overdue run ids, of the roles whose RQ worker is to register again, and of those
-- on whose queue a job lies.
local function heard(name, silent_s, workers)
  note_back(silent_s)
  redis.call('ZADD', NODES, seconds, name)
  -- The node that sees an overdue run has it for a while, so that one advance is enqueued, not one a node.
  local overdue = redis.call('ZRANGEBYSCORE', RUNS_OPEN, '-inf', seconds, 'LIMIT', 0, 16)
  for _, run in ipairs(overdue) do
    redis.call('ZADD', RUNS_OPEN, 'XX', seconds + BEAT_S, run)
  end
  local lost, waiting = {}, {}
  for i, role in ipairs(ROLES) do
    if workers[i] ~= '' and not renew(RQ_WORKER .. workers[i], REGISTERED[i] .. name) then
      lost[#lost + 1] = role
    end
    if has_job(QUEUE[i] .. name) then waiting[#waiting + 1] = role end
  end
  local micros = tonumber(now[1]) * 1e6 + tonumber(now[2])
  if #overdue + #lost + #waiting == 0 then return micros end
  return {micros, overdue, lost, waiting}
end
