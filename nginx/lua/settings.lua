-- What config.yaml says, as openresty_settings.inc gives it: numbers in the unit that ends their name.

local pairs = pairs

local _M = {}


function _M.set(values)
    for name, value in pairs(values) do
        _M[name] = value
    end
end


return _M
