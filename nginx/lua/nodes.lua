-- Which node takes the next handshake: of those not tried yet, the one with the least connections, counted for all
-- workers. One that failed is passed over until it works or down_s have gone by, but where no other is left.

local addresses = require "addresses"
local settings = require "settings"

local ipairs = ipairs
local random = math.random

local DOWN = 1e9 -- more than all connections

local dict = ngx.shared.tidegate_nodes

local _M = {}


-- Less is better: who is down comes last.
local function rank(node)
    local connections = dict:get(node.name) or 0
    return dict:get("down " .. node.name) and connections + DOWN or connections
end


-- The next node, counted as having one connection more; nil when all are in `tried` (name -> true), which grows by it.
-- `up`: none that is passed over.
function _M.take(tried, up)
    local best, best_rank
    local nodes = addresses.nodes()
    local first = random(0, #nodes) -- equals take turns
    for number = 1, #nodes do
        local node = nodes[(first + number) % #nodes + 1]
        local its_rank = not tried[node.name] and rank(node)
        if its_rank and (not best or its_rank < best_rank) then
            best, best_rank = node, its_rank
        end
    end
    if best and not (up and best_rank >= DOWN) then
        tried[best.name] = true
        dict:incr(best.name, 1, 0)
        return best
    end
    return nil
end


function _M.give_back(node)
    dict:incr(node.name, -1, 0)
end


-- This request's client is at a node that was taken; what is still here at its end is given back by `edge.log`.
function _M.enter(node)
    ngx.ctx.node = node
end


-- This request's client is at no node.
function _M.leave()
    local ctx = ngx.ctx
    if ctx.node then
        _M.give_back(ctx.node)
        ctx.node = nil
    end
end


-- name -> whether it is passed over.
function _M.down()
    local down = {}
    for _, node in ipairs(addresses.nodes()) do
        down[node.name] = dict:get("down " .. node.name) or false
    end
    return down
end


function _M.failed(node)
    dict:set("down " .. node.name, true, settings.down_s)
end


function _M.works(node)
    dict:delete("down " .. node.name)
end


return _M
