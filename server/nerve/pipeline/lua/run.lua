-- Compiles the script and runs it; the last part of the trusted code, after which nothing that
-- could reach out of the virtual machine is left.
local host, source, chosen = ...
local meter = host.meter
local type, tostring, pcall, xpcall, load, next = type, tostring, pcall, xpcall, load, next
local sub, gsub, setupvalue, metatable_of = string.sub, string.gsub, debug.setupvalue, debug.getmetatable
local rawget, collectgarbage = rawget, collectgarbage
local number_type, randomseed = math.type, math.randomseed

local finish = meter.finish

local MAX_TEXT_BYTES = 2000
local NO_MEMORY = "not enough memory"
local SEED = 0 -- of each run: the same scores give the same result

local libraries = {}
for name in chosen:gmatch("%S+") do
    libraries[#libraries + 1] = name
end
local string_metatable = metatable_of("")
string_metatable.__metatable = false
if not (" " .. chosen .. " "):find(" string ", 1, true) then
    debug.setmetatable("", nil) -- as in a Lua without the library
end

local fresh = host.environments(libraries)
local chunk, problem = load(source, "=transform", "t")

local function environment()
    local globals = fresh()
    globals.Tensor = host.constructor()
    string_metatable.__index = globals.string
    randomseed(SEED)
    return globals
end

-- What an error says, as the stand-alone interpreter prints it.
local function text_of(value)
    if type(value) ~= "string" then
        local metatable = metatable_of(value)
        local described = metatable and rawget(metatable, "__tostring") and tostring(value)
        if number_type(value) then
            described = tostring(value)
        end
        value = described or "(error object is a " .. type(value) .. " value)"
    end
    return sub(gsub(value, "^%[nerve%]:%d+: ", ""), 1, MAX_TEXT_BYTES)
end

local function postprocess(globals, scores)
    local f = rawget(globals, "Postprocess")
    if scores == nil or f == nil then
        if f ~= nil and type(f) ~= "function" then
            return "failed", "Postprocess must be a function, got " .. type(f)
        end
        return f and "present" or "absent"
    elseif type(f) ~= "function" then
        return "failed", "Postprocess must be a function, got " .. type(f)
    end
    meter.enter(f)
    local result = f(scores)
    if type(result) == "userdata" then
        return "result", result
    end
    local tensor, wrong = host.build(result)
    if tensor then
        return "result", tensor
    end
    return "wrong", sub("Postprocess must return a Tensor or a nested table of numbers: " .. wrong, 1, MAX_TEXT_BYTES)
end

local function attempt(scores)
    local globals = environment()
    setupvalue(chunk, 1, globals)
    meter.enter(chunk)
    chunk()
    return postprocess(globals, scores)
end

local function metered(scores, instructions, deadline)
    meter.start(instructions, deadline)
    local ok, status, value = xpcall(attempt, meter.placed, scores)
    if not ok and not meter.over() then
        if status == NO_MEMORY then
            return "limit", "max_memory_bytes"
        end
        return "failed", text_of(status)
    end
    return status, value
end

-- Runs the script's top level, then Postprocess if there are scores. Returns what became of it and
-- a value: absent, present; result, Tensor; failed or wrong, text; limit, name.
local function run(scores, instructions, deadline)
    if not chunk then
        return problem == NO_MEMORY and "limit" or "failed",
            problem == NO_MEMORY and "max_memory_bytes" or text_of(problem)
    end
    local ok, status, value = pcall(metered, scores, instructions, deadline)
    finish()
    if meter.over() then
        return "limit", meter.over()
    elseif not ok then
        return status == NO_MEMORY and "limit" or "failed",
            status == NO_MEMORY and "max_memory_bytes" or text_of(status)
    end
    return status, value
end

meter.trust(run, finish, meter.over)

local function tidy()
    collectgarbage()
end

-- lupa looks for `debug` here before each call, and may find nothing.
local everything = _G
for name in next, everything do
    everything[name] = nil
end
return run, tidy, meter.over
