-- The one command that the edge carries out. Whatever is not exactly that is the service's, which says what is wrong.

local json_text = require "json_text"
local settings = require "settings"

local byte = string.byte
local find = string.find
local gsub = string.gsub
local sub = string.sub

local COMMA, OBJECT_END = 0x2c, 0x7d
local KEYS = { ['"type"'] = "type", ['"id"'] = "id", ['"method"'] = "method", ['"data"'] = "data" }
local ID_CHARACTERS = 64

local _M = {}


-- An integer within 2^53 written in the only way, or a string without escapes.
local function is_id(text)
    if byte(text) ~= 0x22 then
        return text == "0" or (#text <= 16 and find(text, "^-?[1-9]%d*$") and #gsub(text, "-", "") <= 15)
    end
    local _, continued = gsub(text, "[\128-\191]", "")
    return not find(text, "\\", 1, true) and #text - continued <= ID_CHARACTERS + 2
end


-- The members of the object as name -> JSON text; nil if there are others, or one twice.
local function members(text)
    local found = {}
    local at = json_text.space(text, 2)
    while true do
        local start = json_text.value_of(text, at)
        local name = start and KEYS[sub(text, at, json_text.string_end(text, at) - 1)]
        local stop = name and not found[name] and json_text.value_end(text, start, settings.json_depth - 1)
        if not stop then
            return nil
        end
        found[name] = sub(text, start, stop - 1)
        if name == "type" and found[name] ~= '"call"' then
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


-- {id, method, data} of a call that is allowed and within the limits, else nil or false. `id` and `data` are JSON text as
-- it came. Source: docs/protocol.md, Commands.
function _M.parse(text)
    if byte(text) ~= 0x7b or #text > settings.message_bytes or not find(text, '"call"', 1, true) then
        return nil
    end
    local found = members(text)
    if not found or not found.type or not found.id or not found.method then
        return nil
    end
    local method = sub(found.method, 2, -2)
    local data = found.data or "null"
    if not is_id(found.id) or not settings.calls_allow[method] or found.method ~= '"' .. method .. '"' then
        return nil
    end
    if #data > settings.data_bytes or not json_text.is_utf8(text) then
        return nil
    end
    return { id = found.id, method = method, data = data }
end


return _M
