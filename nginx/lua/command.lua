-- The one command that the edge carries out: every call that the service would carry out too, however it is written, or
-- a client could have as many made there as here. Whatever else is the service's, which says what is wrong.

local json_text = require "json_text"
local settings = require "settings"

local byte = string.byte
local find = string.find
local match = string.match
local rep = string.rep
local sub = string.sub

local QUOTE, COMMA, OBJECT, OBJECT_END = 0x22, 0x2c, 0x7b, 0x7d
local ID_CHARACTERS = 64
-- Of W3C Trace Context, 3.2: version, trace, span, flags.
local TRACEPARENT = "^(%x%x)%-(" .. rep("%x", 32) .. ")%-(" .. rep("%x", 16) .. ")%-%x%x$"
local LARGEST_ID = "9007199254740992" -- 2^53

local _M = {}


local function is_id(text)
    if byte(text) == QUOTE then
        return json_text.characters(text) <= ID_CHARACTERS
    end
    local digits = match(text, "^-?(%d+)$")
    return digits and (#digits < #LARGEST_ID or #digits == #LARGEST_ID and digits <= LARGEST_ID)
end


local function is_traceparent(text)
    local version, trace, span = match(text, TRACEPARENT)
    return version and version ~= "ff" and not find(text, "%u") and find(trace, "[^0]") and find(span, "[^0]")
end


-- What each member must be, also one that a later one of the same name replaces.
local MEMBERS = {
    type = function(text)
        return byte(text) == QUOTE and json_text.name(text) == "call"
    end,
    id = is_id,
    method = function(text)
        return byte(text) == QUOTE
    end,
    data = function()
        return true
    end,
    traceparent = function(text)
        return text == "null" or byte(text) == QUOTE and is_traceparent(json_text.name(text) or "")
    end,
}


-- The members of the object that begins at `at` as name -> JSON text; nil if there are others.
local function members(text, at)
    local found = {}
    at = json_text.space(text, at + 1)
    while true do
        local start = json_text.value_of(text, at)
        local name = start and json_text.name(sub(text, at, json_text.string_end(text, at) - 1))
        local is_good = name and MEMBERS[name]
        local stop = is_good and json_text.value_end(text, start, settings.json_depth - 1)
        if not stop then
            return nil
        end
        found[name] = sub(text, start, stop - 1)
        if not is_good(found[name]) then
            return nil
        end
        at = json_text.space(text, stop)
        if byte(text, at) == OBJECT_END then
            return json_text.space(text, at + 1) > #text and found or nil
        end
        if byte(text, at) ~= COMMA then
            return nil
        end
        at = json_text.space(text, at + 1)
    end
end


-- {id, method, data, traceparent or nil} of a call that is allowed and within the limits, else nil or false. `id` and
-- `data` are JSON as it came. Source: docs/protocol.md, Commands.
function _M.parse(text)
    if #text > settings.message_bytes or not (find(text, '"call"', 1, true) or find(text, "\\u", 1, true)) then
        return nil
    end
    local at = json_text.space(text, 1)
    local found = byte(text, at) == OBJECT and members(text, at)
    if not found or not found.type or not found.id or not found.method then
        return nil
    end
    local method, data = json_text.name(found.method), found.data or "null"
    if not settings.calls_allow[method] or #data > settings.data_bytes or not json_text.is_utf8(text) then
        return nil
    end
    local traceparent = found.traceparent ~= "null" and found.traceparent
    return {
        id = found.id == "-0" and "0" or found.id,
        method = method,
        data = data,
        traceparent = traceparent and json_text.name(traceparent) or nil,
    }
end


return _M
