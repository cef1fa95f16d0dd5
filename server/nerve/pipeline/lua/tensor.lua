-- `Tensor` as a script sees it: userdata whose only fields are the methods below. Loops over parts
-- and elements run here, so that Python never calls back into Lua.
local host, sample = ...
local meter, calls, bad_argument = host.meter, host.calls, host.bad_argument
local invoke = meter.invoke
local error, type, setmetatable = error, type, setmetatable
local math_type, tointeger, min = math.type, math.tointeger, math.min
local pack, unpack_string, rep, concat, unpack = string.pack, string.unpack, string.rep, table.concat, table.unpack

local MAX_DEPTH = 32
local BLOCK = 128 -- numbers that cross at once, below what a call may have as arguments
local BLOCK_FORMAT = "<" .. rep("f", BLOCK)

local function format_of(count)
    return count == BLOCK and BLOCK_FORMAT or "<" .. rep("f", count)
end

-- The numbers of nested tables, appended to `flat`; returns how many it has now, or nil and a problem.
local function flatten(value, depth, sizes, flat, count)
    local length = tointeger(#value)
    if not length or length < 0 then
        return nil, "object length is not an integer"
    elseif depth > MAX_DEPTH then
        return nil, "tables are nested more than " .. MAX_DEPTH .. " deep; does one hold itself?"
    elseif sizes[depth] == nil then
        sizes[depth] = length
    elseif sizes[depth] ~= length then
        return nil, "tables of one level must have the same length, found " .. sizes[depth] .. " and " .. length
    end
    if type(value[1]) ~= "table" then
        sizes.rank = sizes.rank or depth
    end
    local leaves = sizes.rank == depth
    for i = 1, length do
        local item = value[i]
        if leaves and math_type(item) then
            count = count + 1
            flat[count] = item
        elseif not leaves and type(item) == "table" and depth ~= sizes.rank then
            local problem
            count, problem = flatten(item, depth + 1, sizes, flat, count)
            if not count then
                return nil, problem
            end
        else
            return nil, (leaves and "number" or "table") .. " expected, got " .. type(item)
        end
    end
    return count
end

-- A Tensor of nested tables of numbers, or nil and a problem.
local function build(value)
    if type(value) ~= "table" then
        return nil, "Unknown type: " .. type(value)
    end
    local sizes, flat = {}, {}
    local count, problem = flatten(value, 1, sizes, flat, 0)
    if not count then
        return nil, problem
    end
    local parts = {}
    for first = 1, count, BLOCK do
        local last = min(first + BLOCK - 1, count)
        parts[#parts + 1] = pack(format_of(last - first + 1), unpack(flat, first, last))
    end
    return invoke(calls.make, concat(parts), unpack(sizes))
end
host.build = build

local function new(value)
    local tensor, problem = build(value)
    if tensor == nil then
        error("Tensor: " .. problem)
    end
    return tensor
end

-- The global `Tensor`, afresh for each run.
function host.constructor()
    return setmetatable({ new = new }, {
        __call = function(_, value)
            local tensor, problem = build(value)
            if tensor == nil then
                error("Tensor: " .. problem)
            end
            return tensor
        end,
        __metatable = false,
    })
end

local methods = {}

local function check_self(self, name)
    if type(self) ~= "userdata" then
        error("calling '" .. name .. "' on bad self (Tensor expected, got " .. type(self)
            .. "); is it called with ':'?")
    end
end

local converters = {
    integer = function(value, position, name)
        if type(value) ~= "number" then
            bad_argument(position, name, "number", value)
        end
        local whole = tointeger(value)
        if whole == nil then
            error("bad argument #" .. position .. " to '" .. name
                .. "' (number has no integer representation)")
        end
        return whole
    end,
    number = function(value, position, name)
        if type(value) ~= "number" then
            bad_argument(position, name, "number", value)
        end
        return value + 0.0
    end,
    optional = function(value, position, name)
        if value ~= nil and type(value) ~= "number" then
            bad_argument(position, name, "nil or number", value)
        end
        return value and value + 0.0
    end,
    tensor = function(value, position, name)
        if type(value) ~= "userdata" then
            bad_argument(position, name, "Tensor", value)
        end
        return value
    end,
}

local function convert(converter, value, position, name)
    return converter and converters[converter](value, position, name)
end

local function define(name, first, second)
    local call = calls[name]
    methods[name] = function(self, a, b)
        check_self(self, name)
        if second then
            return (invoke(call, self, convert(first, a, 1, name), convert(second, b, 2, name)))
        elseif first then
            return (invoke(call, self, convert(first, a, 1, name)))
        end
        return (invoke(call, self)) -- the brackets: a tail call would lose the script's line
    end
end

for name in ("ndim sum mean min max exp log transpose"):gmatch("%S+") do
    define(name)
end
for name in ("softmax sum_axis max_axis argmax argmin"):gmatch("%S+") do
    define(name, "integer")
end
define("std", "number")
define("clamp", "optional", "optional")
define("lp_normalize", "number", "integer")
define("layer_norm", "integer", "number")
define("truncate_axis", "integer", "integer")
define("mean_pool", "tensor")

function methods.shape(self)
    check_self(self, "shape")
    local sizes = {}
    for axis = 1, invoke(calls.ndim, self) do
        sizes[axis] = invoke(calls.size, self, axis)
    end
    return sizes
end

function methods.map_axis(self, axis, f)
    check_self(self, "map_axis")
    axis = convert("integer", axis, 1, "map_axis")
    if type(f) ~= "function" then
        bad_argument(2, "map_axis", "function", f)
    end
    local parts = invoke(calls.parts)
    for i = 1, invoke(calls.size, self, axis) do
        local part = f(invoke(calls.part, self, axis, i))
        if type(part) ~= "userdata" then
            local problem
            part, problem = build(part)
            if part == nil then
                error("map_axis: the function must return a Tensor or a table of numbers: " .. problem)
            end
        end
        invoke(calls.append, parts, part)
    end
    return (invoke(calls.stack, parts, axis))
end

-- Encoderfile wants the start value, its documentation leaves it out: both ways work.
function methods.fold_axis(self, axis, start, f)
    check_self(self, "fold_axis")
    axis = convert("integer", axis, 1, "fold_axis")
    if f == nil and type(start) == "function" then
        start, f = 0, start
    end
    start = convert("number", start, 2, "fold_axis")
    if type(f) ~= "function" then
        bad_argument(3, "fold_axis", "function", f)
    end
    local bytes = invoke(calls.elements, self, axis)
    local results, size = {}, invoke(calls.size, self, axis)
    local each = size > 0 and #bytes // (4 * size) or 0
    local at = 1
    for i = 1, size do
        local value, left = start, each
        while left > 0 do
            local count = min(left, BLOCK)
            local block = { unpack_string(format_of(count), bytes, at) }
            for k = 1, count do
                value = f(value, block[k])
            end
            at, left = at + 4 * count, left - count
        end
        if math_type(value) == nil then
            error("fold_axis: the function must return a number, got " .. type(value))
        end
        results[i] = value
    end
    return (build(results))
end

local metatable = debug.getmetatable(sample)
for name in next, metatable do
    if name ~= "__gc" then
        metatable[name] = nil
    end
end
metatable.__name, metatable.__metatable, metatable.__index = "Tensor", false, methods

for event, call in next, { __add = calls.add, __sub = calls.sub, __mul = calls.mul, __div = calls.div } do
    metatable[event] = function(left, right)
        if type(left) ~= "userdata" and type(left) ~= "number"
            or type(right) ~= "userdata" and type(right) ~= "number" then
            error("Expected either number or Tensor.")
        end
        return (invoke(call, left, right))
    end
end
function metatable.__len(self)
    return (invoke(calls.len, self))
end
function metatable.__tostring(self)
    return (invoke(calls.tostring, self))
end
function metatable.__eq(left, right)
    return type(left) == "userdata" and type(right) == "userdata" and invoke(calls.equal, left, right)
end
