-- Counts what a run takes and stops it at a limit. Once a limit is reached (`over`), every place
-- where a script could catch the error raises it again, so that nothing swallows it.
local host = ...
local calls = host.calls
local error, collectgarbage, sethook, getinfo = error, collectgarbage, debug.sethook, debug.getinfo
local clock = calls.clock

local STEP = 1000 -- instructions between two looks at the limits
local COROUTINE_STEP = 100 -- what a resume costs at least, as a coroutine counts from 0 each time
local SLOW_S, MANY_KIB, CAREFUL_STEP = 0.005, 16384, 50 -- strings of megabytes make instructions slow
local NO_MEMORY = "not enough memory" -- Lua's own text, without a place before it

local meter = {}
local used, budget, deadline, last = 0, 0, 0, 0
local over -- the name of the limit that was reached
local hook

local function stop(limit)
    over = limit
    sethook(hook, "", 1) -- a __close handler, all that can still run, gets no further than this
    error(limit, 0)
end

local function charge(cost)
    used = used + cost
    if over then
        error(over, 0)
    end
    if used > budget then
        stop("max_instructions")
    end
end

-- Where a run ends, the hook is still set.
local trusted = {}
function meter.trust(...)
    for i = 1, select("#", ...) do
        trusted[(select(i, ...))] = true
    end
end

local step = STEP
hook = function()
    if (over or used + step > budget) and trusted[getinfo(2, "f").func] then
        return
    end
    charge(step)
    local now = clock()
    if now > deadline then
        stop("timeout_microseconds")
    end
    local careful = now - last > SLOW_S or collectgarbage("count") > MANY_KIB
    local wanted = careful and CAREFUL_STEP or STEP
    if wanted > budget then
        wanted = budget
    end
    last = now
    if wanted ~= step then
        step = wanted
        sethook(hook, "", step)
    end
end

local function coroutine_hook()
    charge(COROUTINE_STEP)
    if clock() > deadline then
        stop("timeout_microseconds")
    end
end

meter.stop, meter.charge = stop, charge

function meter.look_at_clock()
    if clock() > deadline then
        stop("timeout_microseconds")
    end
end

function meter.watch(thread)
    sethook(thread, coroutine_hook, "", COROUTINE_STEP)
end

function meter.charge_resume()
    charge(COROUTINE_STEP)
end

-- Hands on what a protected call returned, unless that was a limit.
function meter.guard(ok, ...)
    if over then
        error(over, 0)
    end
    if not ok and (...) == NO_MEMORY then
        stop("max_memory_bytes")
    end
    return ok, ...
end

function meter.over()
    return over
end

function meter.start(instructions, until_s)
    used, over, budget, deadline, last = 0, nil, instructions, until_s, clock()
    step = budget < STEP and budget or STEP
    sethook(hook, "", step)
end

function meter.finish()
    sethook()
end

-- A call into Python: its value, or the error that it tells of, raised where the script made it.
function meter.invoke(call, ...)
    local ok, value, untidy = call(...)
    if ok == nil and value == "max_memory_bytes" then
        collectgarbage() -- Lua does not know how large what it no longer needs is
        ok, value = call(...)
    elseif untidy then
        collectgarbage()
    end
    if ok then
        return value
    elseif ok == nil then
        stop(value)
    end
    error(value, 3)
end

host.meter = meter
