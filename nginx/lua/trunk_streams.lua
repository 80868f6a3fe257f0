-- The streams of one trunk: where each is, and which sessions are there too (live) or only have it (tracked). Nothing
-- of nginx is needed here.
--
-- A session is a table here with `tracked` (how many streams it has that are not live), `has` (its streams: stream ->
-- its place in the stream's list, or false while it is tracked) and `output`, which hears and whose `session` it is.
-- Lists have outputs: each message looks at all of them, and at nothing else of their sessions.
--
-- A broadcast goes out in slices, and others run between them: who leaves meanwhile leaves a hole in the list, which is
-- closed later. Nobody can come in, because what says so comes on the trunk, behind the broadcast. From its first slice
-- on the stream is where it takes it; so where the trunk ends meanwhile, the rest gets it at once (`finish`).

local setmetatable = setmetatable
local min = math.min
local pairs = pairs

local SLICE = 100 -- sessions that are given a message before others have their turn
local HOLES = 64

local _M = {}
local mt = { __index = _M }


-- `pause` lets others run; `hear` gives bytes to an output, and is told whether they are the last for now.
function _M.new(pause, hear)
    return setmetatable({ by_number = {}, pause = pause, hear_one = hear, rest = nil }, mt)
end


local function close_holes(stream)
    local list, count = stream.list, 0
    for place = 1, stream.count do
        local out = list[place]
        if out then
            count = count + 1
            list[count] = out
            out.session.has[stream] = count
        end
    end
    for place = count + 1, stream.count do
        list[place] = nil
    end
    stream.count, stream.holes = count, 0
end


local function suspend(stream, place)
    stream.list[place] = false
    stream.live = stream.live - 1
    stream.holes = stream.holes + 1
    if stream.holes > HOLES and stream.holes * 4 > stream.count and not stream.is_busy then
        close_holes(stream)
    end
end


-- The session has no more to do with the stream, which is forgotten when nobody has it.
local function drop(self, stream, session)
    local place = session.has[stream]
    if place == nil then
        return
    end
    session.has[stream] = nil
    if place then
        suspend(stream, place)
    else
        session.tracked = session.tracked - 1
    end
    stream.users = stream.users - 1
    if stream.users == 0 then
        self.by_number[stream.number] = nil
    end
end


-- nil where the number is another stream's.
local function add(self, number, name, session)
    local stream = self.by_number[number]
    if stream and stream.name ~= name then
        return nil
    end
    if not stream then
        stream = {
            number = number, name = name, position = nil, list = {}, count = 0, live = 0, holes = 0, users = 0,
            is_busy = false,
        }
        self.by_number[number] = stream
    end
    if session.has[stream] == nil then
        stream.users = stream.users + 1
        session.has[stream] = false
        session.tracked = session.tracked + 1
    end
    return stream
end


-- The session has the stream, and is not where it is; false where the number is another stream's.
function _M.track(self, number, name, session)
    local stream = add(self, number, name, session)
    if not stream then
        return false
    end
    local place = session.has[stream]
    if place then
        suspend(stream, place)
        session.has[stream] = false
        session.tracked = session.tracked + 1
    end
    return true
end


-- From here on it is where the stream is; false where that is not `position`, or the number is another stream's.
function _M.follow(self, number, name, position, session)
    local stream = add(self, number, name, session)
    if not stream or (stream.live > 0 and stream.position ~= position) then
        return false
    end
    stream.position = position
    if not session.has[stream] then
        session.tracked = session.tracked - 1
        stream.count, stream.live = stream.count + 1, stream.live + 1
        stream.list[stream.count] = session.output
        session.has[stream] = stream.count
    end
    return true
end


function _M.untrack(self, number, session)
    local stream = self.by_number[number]
    if stream then
        drop(self, stream, session)
    end
end


function _M.leave_all(self, session)
    for stream in pairs(session.has) do
        drop(self, stream, session)
    end
end


-- Where the session is in each of its streams, by name; nil where it is behind in one.
function _M.cursor(session)
    if session.tracked > 0 then
        return nil
    end
    local positions = {}
    for stream in pairs(session.has) do
        positions[stream.name] = stream.position
    end
    return positions
end


-- One slice of a broadcast; whether another is left.
local function go_on(self)
    local rest = self.rest
    local list, hear, bytes, is_last = rest.stream.list, self.hear_one, rest.bytes, rest.is_last
    local first = rest.place
    local last = min(first + SLICE - 1, rest.count)
    rest.place = last + 1
    for at = first, last do
        local out = list[at]
        if out then
            hear(out, bytes, is_last)
        end
    end
    return last < rest.count
end


local function is_given(self)
    local stream = self.rest.stream
    self.rest, stream.is_busy = nil, false
    if stream.holes > HOLES and stream.holes * 4 > stream.count then
        close_holes(stream)
    end
end


-- Gives what was under way, when its thread has ended, to those who have not got it.
function _M.finish(self)
    if self.rest then
        while go_on(self) do end
        is_given(self)
    end
end


-- These bytes to all who are there; the stream is at `after` then. False where it was not at `before`. `is_last`: so
-- far nothing has come behind them.
function _M.hear(self, number, before, after, bytes, is_last)
    local stream = self.by_number[number]
    if not stream or stream.live == 0 then
        return true -- its last session has just gone
    end
    if stream.position ~= before then
        return false
    end
    stream.position = after
    if bytes == "" then
        return true
    end
    stream.is_busy = true
    self.rest = { stream = stream, bytes = bytes, is_last = is_last, place = 1, count = stream.count }
    while go_on(self) do
        self.pause()
    end
    is_given(self)
    return true
end


return _M
