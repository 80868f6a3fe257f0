-- JSON text (RFC 8259): checked as strictly as the service does, cut, and never made into values. What passes keeps its
-- digits, its order and its repeats. Positions are those of Lua's strings; nil where the text is not what is asked for.

local byte = string.byte
local find = string.find
local sub = string.sub
local tonumber = tonumber
local re_find = ngx.re.find

local QUOTE, BACKSLASH, COMMA, COLON, U = 0x22, 0x5c, 0x2c, 0x3a, 0x75
local ARRAY, ARRAY_END, OBJECT, OBJECT_END = 0x5b, 0x5d, 0x7b, 0x7d
local ESCAPED = '^["\\/bfnrt]'
local WORDS = { [0x74] = "true", [0x66] = "false", [0x6e] = "null" }

local _M = {}


-- Where the white space that begins at `at` ends.
local function space(text, at)
    local _, last = find(text, "^[ \t\r\n]*", at)
    return last + 1
end
_M.space = space


local function code_unit(text, at)
    return find(text, "^%x%x%x%x", at) and tonumber(sub(text, at, at + 3), 16)
end


-- Behind the escape whose backslash is at `at`. Half a surrogate pair is none, as the service has it.
local function escape_end(text, at)
    if byte(text, at + 1) ~= U then
        return find(text, ESCAPED, at + 1) and at + 2
    end
    local unit = code_unit(text, at + 2)
    if not unit or (unit >= 0xdc00 and unit <= 0xdfff) then
        return nil
    end
    if unit < 0xd800 or unit > 0xdfff then
        return at + 6
    end
    local low = find(text, "^\\u", at + 6) and code_unit(text, at + 8)
    return low and low >= 0xdc00 and low <= 0xdfff and at + 12 or nil
end


-- Behind the string that begins at `at`.
local function string_end(text, at)
    if byte(text, at) ~= QUOTE then
        return nil
    end
    at = at + 1
    while at do
        at = find(text, '[%z\1-\31"\\]', at)
        local char = at and byte(text, at)
        if char == QUOTE then
            return at + 1
        end
        at = char == BACKSLASH and escape_end(text, at) or nil
    end
    return nil
end
_M.string_end = string_end


local function number_end(text, at)
    local _, last = find(text, "^-?[1-9]%d*", at)
    if not last then
        _, last = find(text, "^-?0", at)
    end
    if not last then
        return nil
    end
    local _, fraction = find(text, "^%.%d+", last + 1)
    last = fraction or last
    local _, exponent = find(text, "^[eE][+-]?%d+", last + 1)
    return (exponent or last) + 1
end


local function word_end(text, at, word)
    local stop = at + #word
    return sub(text, at, stop - 1) == word and stop or nil
end


local value_end


-- Where the value of the member that begins at `at` begins.
local function value_of(text, at)
    at = string_end(text, at)
    at = at and space(text, at)
    return at and byte(text, at) == COLON and space(text, at + 1) or nil
end
_M.value_of = value_of


-- Behind the array or object that begins at `at` and ends with `closer`.
local function container_end(text, at, most, closer)
    at = space(text, at + 1)
    if byte(text, at) == closer then
        return at + 1
    end
    while true do
        if closer == OBJECT_END then
            at = value_of(text, at)
        end
        at = at and value_end(text, at, most)
        if not at then
            return nil
        end
        at = space(text, at)
        local char = byte(text, at)
        if char == closer then
            return at + 1
        end
        if char ~= COMMA then
            return nil
        end
        at = space(text, at + 1)
    end
end


-- Behind the value that begins at `at` and nests no deeper than `most` levels.
function value_end(text, at, most)
    local char = byte(text, at)
    if char == QUOTE then
        return string_end(text, at)
    end
    if char == OBJECT or char == ARRAY then
        return most > 0 and container_end(text, at, most - 1, char == OBJECT and OBJECT_END or ARRAY_END) or nil
    end
    if WORDS[char] then
        return word_end(text, at, WORDS[char])
    end
    return number_end(text, at)
end
_M.value_end = value_end


-- PCRE refuses what is not UTF-8, surrogates and overlong forms too.
function _M.is_utf8(text)
    return not find(text, "[\128-\255]") or re_find(text, "^", "jou") ~= nil
end


-- One JSON text without the white space around it, nested no deeper than `most` levels.
function _M.document(text, most)
    local first = space(text, 1)
    local stop = value_end(text, first, most)
    if not stop or space(text, stop) <= #text or not _M.is_utf8(text) then
        return nil
    end
    return sub(text, first, stop - 1)
end


return _M
