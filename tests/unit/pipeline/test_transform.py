"""The sandbox: what a script sees, what may come of it, and that its runs know nothing of each other."""

from __future__ import annotations

import gc
import math
import resource
import weakref
from pathlib import Path

import numpy as np
import pytest

from lua_scripts import LIBRARIES, SMALL, printed, sandbox, scores
from nerve.pipeline.transform import LimitExceeded, ScriptFailed, WrongResult
from nerve.types import FloatArray, Limits

SPIN = "while true do end"
SHORT = SMALL._replace(timeout_us=20_000, max_instructions=10**12)


def test_the_page_s_softmax() -> None:
    logits = scores(2, 5, 9)
    box = sandbox(
        "--- Apply softmax\nfunction Postprocess(arr)\n return arr:softmax(3)\nend", libs=None
    )
    assert box.has_postprocess
    powers = np.exp(logits - logits.max(axis=2, keepdims=True))
    np.testing.assert_allclose(
        box.run(logits), powers / powers.sum(axis=2, keepdims=True), rtol=1e-6
    )


def test_the_page_s_argmax_chooses_classes() -> None:
    logits = scores(2, 5, 9)
    chosen = sandbox("function Postprocess(arr) return arr:argmax(3) end").run(logits)
    assert chosen.dtype == np.float32
    assert np.array_equal(chosen, logits.argmax(axis=2) + 1)


def test_without_postprocess_scores_stay_as_they_are() -> None:
    box = sandbox("local unused = 1")
    assert not box.has_postprocess
    assert np.array_equal(box.run(scores(1, 2, 3)), scores(1, 2, 3))


def test_a_nested_table_will_do() -> None:
    box = sandbox("function Postprocess(arr) return {{{1, 2}, {3, 4.5}}} end")
    assert box.run(scores(1, 2, 2)).tolist() == [[[1, 2], [3, 4.5]]]


def test_views_and_other_types_of_scores() -> None:
    """The result is row-major whatever it was made from; the argument is not written to."""
    logits = scores(2, 3, 2).astype(np.float64)[::-1]
    kept = logits.copy()
    box = sandbox("function Postprocess(arr) return arr:transpose():transpose() + 0 end")
    found = box.run(logits)  # type: ignore[arg-type]  # what numpy makes of float32 easily
    assert found.flags.c_contiguous
    assert found.dtype == np.float32
    assert np.array_equal(logits, kept)


WRONG = {
    "return nil": "Postprocess must return a Tensor or a nested table of numbers: Unknown type: nil",
    "return 'x'": "Postprocess must return a Tensor or a nested table of numbers: Unknown type: string",
    "return {{{1}, 2}}": "Postprocess must return a Tensor or a nested table of numbers: table expected,"
    " got number",
    "return arr:sum_axis(1)": "Postprocess must return a Tensor of the shape it got, [2, 3, 4], or one"
    " class number for each token, of shape [2, 3]; got shape [3, 4]",
    "return arr:transpose()": "Postprocess must return a Tensor of the shape it got, [2, 3, 4], or one"
    " class number for each token, of shape [2, 3]; got shape [4, 3, 2]",
    "return arr * (0/0)": "a score must be a number below +inf; got nan for row 1, token 1, label 1",
    "return arr + math.huge": "a score must be a number below +inf; got inf for row 1, token 1, label 1",
    "return arr - math.huge": "a token needs at least one score above -inf; got none for row 1, token 1",
    "return arr:argmax(3) + 4": "a class must be a whole number from 1 to 4",
    "return arr:argmax(3) - 4": "a class must be a whole number from 1 to 4",
    "return {{1, 2, 3}, {4, 1.5, 1}}": "a class must be a whole number from 1 to 4; got 1.5 for row 2,"
    " token 2",
    "return {{1, 2, 3}, {4, 1, 0/0}}": "a class must be a whole number from 1 to 4; got nan for row 2,"
    " token 3",
}


@pytest.mark.parametrize("body", sorted(WRONG))
def test_wrong_results_say_what_was_expected(body: str) -> None:
    box = sandbox(f"function Postprocess(arr) {body} end")
    with pytest.raises(WrongResult) as caught:
        box.run(scores(2, 3, 4))
    assert caught.value.text.startswith(WRONG[body])


def test_minus_infinity_is_a_score() -> None:
    """A transform may forbid labels."""
    logits = scores(1, 2, 2)
    found = sandbox("function Postprocess(arr) return arr + Tensor{0, -math.huge} end").run(logits)
    assert np.array_equal(found[..., 0], logits[..., 0])
    assert np.isneginf(found[..., 1]).all()


def test_large_scores_are_no_infinity() -> None:
    """Their sum is."""
    logits = np.full((1, 2, 2), 3e38, np.float32)
    assert np.array_equal(sandbox("function Postprocess(arr) return arr end").run(logits), logits)


@pytest.mark.parametrize("body", ["arr / arr", "(arr / arr):map_axis(3, function(s) return s end)"])
def test_padding_may_be_anything(body: str) -> None:
    """Its rows are zeros, of which a transform may make NaN."""
    logits = scores(2, 3, 4)
    logits[1, 1:] = 0
    box = sandbox(f"function Postprocess(arr) return {body} end")
    assert np.isnan(box.run(logits, lengths=[3, 1])[1, 1:]).all()
    with pytest.raises(WrongResult, match="row 2, token 2"):
        box.run(logits, lengths=[3, 2])
    with pytest.raises(WrongResult, match="row 2, token 2"):
        box.run(logits)


FAILING = {
    "x =": "transform:1: unexpected symbol near <eof>",
    "\n\nlocal x = nil + 1": "transform:3: attempt to perform arithmetic on a nil value",
    "error('mine')": "transform:1: mine",
    "error('mine', 0)": "mine",
    "error({})": "(error object is a table value)",
    "error(nil)": "(error object is a nil value)",
    "error(true)": "(error object is a boolean value)",
    "error(12)": "12",
    "error(Tensor{1})": "[1]",
    "error(setmetatable({}, {__tostring = function() return 'told' end}))": "told",
    "error('\\xff\\xfe', 0)": "\N{REPLACEMENT CHARACTER}" * 2,
    "io.open('x')": "transform:1: attempt to index a nil value (global 'io')",
    "Postprocess = {}": "Postprocess must be a function, got table",
    "require 'x'": "transform:1: attempt to call a nil value (global 'require')",
    "coroutine.resume(1)": "transform:1: bad argument #1 to 'resume' (coroutine expected, got number)",
    "setmetatable({}, {__gc = 1})": "transform:1: a metatable with __gc is not available to a transform",
    "string.rep()": "transform:1: bad argument #1 to 'rep' (string expected, got nil)",
    "table.insert(1, 2)": "transform:1: bad argument #1 to 'insert' (table expected, got number)",
    "error('a\\nFAKE\\27[31m\\0\\r\u202e', 0)": "a\\nFAKE\\x1b[31m\\x00\\r\\u202e",
    "Tensor(setmetatable({}, {__len = function() return 2.5 end}))": "transform:1: Tensor: object length"
    " is not an integer",
    "Tensor(setmetatable({}, {__len = function() return -1 end}))": "transform:1: Tensor: object length"
    " is not an integer",
    "\x1bLua": "attempt to load a binary chunk (mode is 't')",
}


@pytest.mark.parametrize("script", sorted(FAILING))
def test_errors_are_lua_s_own(script: str) -> None:
    with pytest.raises(ScriptFailed) as caught:
        sandbox(script)
    assert caught.value.text == FAILING[script]


PLACES = {
    "return arr:softmax(9)": "transform:2: Axis out of range.",
    "local other = arr + {}": "transform:2: Expected either number or Tensor.",
    "return string.rep({}, 2)": "transform:2: bad argument #1 to 'rep' (string expected, got table)",
    "string.reverse({})": "transform:2: bad argument #1 to 'reverse' (string expected, got table)",
    "string.format('%d', arr)": "transform:2: bad argument #2 to 'format' (number expected, got Tensor)",
    "local one = 1\n return Tensor(one)": "transform:2-3: Tensor: Unknown type: number",
    "error(select(2, pcall(function()\n return 0, arr:exp(), table.insert(1, 2) end)), 0)":
    "transform:3: bad argument #1 to 'insert' (table expected, got number)",
    "error(select(2, coroutine.resume(coroutine.create(function()\n arr:softmax(9) end))), 0)":
    "transform:3: Axis out of range.",
    "load('\\n arr:softmax(9)', '=mine', 't', {arr = arr})()": "mine:2: Axis out of range.",
}  # fmt: skip


@pytest.mark.parametrize("body", sorted(PLACES))
def test_errors_tell_the_script_s_line(body: str) -> None:
    """In a tail call, too, where there is no frame of the script any more."""
    box = sandbox(f"function Postprocess(arr)\n {body}\nend")
    with pytest.raises(ScriptFailed) as caught:
        box.run(scores(1, 2, 2))
    assert caught.value.text == PLACES[body]


def test_handlers_of_errors_see_the_script_s_line() -> None:
    script = "xpcall(function() local x = Tensor(5) end, print)"
    assert printed(script) == ["transform:1: Tensor: Unknown type: number"]


def test_chance_is_the_same_in_each_run() -> None:
    box = sandbox("function Postprocess(arr) return arr * math.random() end")
    assert np.array_equal(box.run(scores(1, 2, 2)), box.run(scores(1, 2, 2)))
    other = sandbox("function Postprocess(arr) return arr * math.random() end")
    assert np.array_equal(box.run(scores(1, 2, 2)), other.run(scores(1, 2, 2)))


def test_a_failed_run_s_machine_goes_at_once() -> None:
    """With all that it holds; the collector of cycles may be long in coming."""
    box = sandbox("function Postprocess(arr) kept = arr:exp() error('x') end")
    assert box._machine is not None
    meter = weakref.ref(box._machine.meter)
    gc.disable()
    try:
        with pytest.raises(ScriptFailed):
            box.run(scores(1, 2, 2))
        assert meter() is None
    finally:
        gc.enable()


def test_a_script_has_a_largest_size() -> None:
    with pytest.raises(ScriptFailed, match="has 1048577 bytes; 1048576 at most"):
        sandbox("-" * (1024 * 1024 + 1))


@pytest.mark.parametrize(
    ("libs", "there"),
    [
        (None, {"table", "string", "math"}),
        ((), set()),
        (("utf8",), {"utf8"}),
        (("coroutine", "coroutine"), {"coroutine"}),
        (LIBRARIES, set(LIBRARIES)),
    ],
)
def test_the_chosen_libraries_replace_the_default_ones(
    libs: tuple[str, ...] | None, there: set[str]
) -> None:
    script = """for _, name in ipairs{'coroutine', 'math', 'string', 'table', 'utf8'} do
        if _G[name] then print(name) end end"""
    assert set(printed(script, libs=libs)) == there


def test_strings_have_methods_only_with_their_library() -> None:
    assert printed("print(('x'):upper())", libs=("string",)) == ["X"]
    with pytest.raises(ScriptFailed, match="attempt to index a string value"):
        printed("print(('x'):upper())", libs=())


@pytest.mark.parametrize("name", ["io", "os", "package", "debug"])
def test_libraries_that_reach_out_are_refused(name: str) -> None:
    with pytest.raises(ScriptFailed, match=f"^Lua library '{name}' is not available to transforms"):
        sandbox("", libs=("string", name))


def test_unknown_libraries() -> None:
    with pytest.raises(ScriptFailed, match=r"^Unknown Lua stdlib: strings$"):
        sandbox("", libs=("strings",))


def test_runs_know_nothing_of_each_other() -> None:
    """Whatever one changes, globals, libraries, the methods of strings, the next finds as new."""
    box = sandbox("""
        assert(seen == nil and string.mine == nil and string.rep)
        assert(not pcall(function() return ('x'):mine() end))
        assert(Tensor.mine == nil and getmetatable(_G) == nil and pcall and print ~= error)
        local count = 0
        function Postprocess(arr)
            count = count + 1
            seen, string.mine, string.rep, Tensor.mine, pcall, print = 1, print, nil, 1, nil, error
            setmetatable(_G, {__index = error})
            math, table = nil, nil
            return arr + count
        end""")
    for _ in range(3):
        assert np.array_equal(box.run(scores(1, 2, 2)), scores(1, 2, 2) + 1)


def test_strings_take_methods_that_a_script_adds() -> None:
    assert printed("function string.twice(s) return s .. s end print(('ab'):twice())") == ["abab"]


def test_what_standard_lua_does_still_works() -> None:
    """The wrapped functions behave as Lua's."""
    script = r"""
        assert(select(2, pcall(error, 'a', 0)) == 'a' and select('#', pcall(function() end)) == 1)
        assert(select(2, xpcall(error, function(e) return e .. '!' end, 'a')) == 'a!')
        assert(load('return ...')(3) == 3 and load('x1 = 4; return x1')() == 4 and x1 == 4)
        local part = 0
        assert(load(function() part = part + 1 return ({'return ', '7'})[part] end)() == 7)
        assert(load('y = 1', 'n', 't', {}) and y == nil)
        assert(select(2, load('x =', '=mine')):find('^mine:1:'))
        assert(table.concat({1, 2, 3}, ',') == '1,2,3' and table.concat({1, 2, 3}, ',', 2) == '2,3')
        local t = {1, 2} table.insert(t, 3) table.insert(t, 1, 0) assert(table.concat(t) == '0123')
        assert(table.remove(t) == 3 and table.remove(t, 1) == 0 and table.concat(t) == '12')
        assert(table.concat(table.move({1, 2, 3}, 2, 3, 1)) == '233')
        assert(select('#', table.unpack({1, nil, 3}, 1, 3)) == 3 and table.pack(1, 2).n == 2)
        t = {3, 1, 2} table.sort(t, function(a, b) return a > b end) assert(table.concat(t) == '321')
        assert(('ab'):rep(3, '-') == 'ab-ab-ab' and (''):rep(9) == '' and ('x'):rep(-1) == '')
        assert(('key = value'):match('^(%w+)%s*=%s*(%w+)$') == 'key' and ('a.b'):find('.', 1, true) == 2)
        assert(('abc'):gsub('%w', '%0%0') == 'aabbcc' and select(2, ('abc'):gsub('%w', '')) == 3)
        local words = {} for w in ('one two'):gmatch('%a+') do words[#words + 1] = w end
        assert(#words == 2 and ('x'):format() == 'x' and ('%5.1f'):format(2) == '  2.0')
        assert(utf8.char(228, 8364) == 'ä€' and #'ä€' == 5 and utf8.len('ä€') == 2)
        local co = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) return b * 2 end)
        assert(co(1) == 2 and co(5) == 10)
        local c = coroutine.create(function() error('inside', 0) end)
        local ok, e = coroutine.resume(c)
        assert(not ok and e == 'inside' and coroutine.status(c) == 'dead')
        ok, e = pcall(coroutine.wrap(function() error({1}) end))
        assert(not ok and e[1] == 1)
        c = coroutine.create(coroutine.yield) coroutine.resume(c)
        assert(coroutine.close(c) and not coroutine.isyieldable() and select(2, coroutine.running()))
        local closing = setmetatable({}, {__close = function() t = nil end})
        ok, e = pcall(function() local x <close> = closing end)
        assert(ok and t == nil and collectgarbage('count') > 0 and collectgarbage() == 0)
        assert(math.tointeger(3.0) == 3 and 7 // 2 == 3 and '10' + 5 == 15 and _VERSION == 'Lua 5.4')
        print('all')"""
    assert printed(script) == ["all"]


def test_printing_goes_to_the_log() -> None:
    assert printed("print(1, 'a', nil, true) warn('b', 'c') print('x\\ny', 'ä\\0')") == [
        "1\ta\tnil\ttrue",
        "bc",
        "x\\ny\tä\\x00",
    ]


def test_printing_is_bounded() -> None:
    lines = printed("for i = 1, 500 do print(('x'):rep(2000)) end")
    assert len(lines) == 101
    assert lines[0] == "x" * 1000
    assert lines[-1] == "(further lines of this run are left out)"


@pytest.mark.parametrize(
    ("limits", "script", "limit", "value"),
    [
        (SHORT, SPIN, "timeout_microseconds", 20_000),
        (SHORT, f"pcall(function() {SPIN} end)",
         "timeout_microseconds", 20_000),
        (SHORT,
         "local t = Tensor{1} while true do t:exp() end", "timeout_microseconds", 20_000),
        (SMALL._replace(max_instructions=10), "local x = 0 for i = 1, 100 do x = x + i end",
         "max_instructions", 10),
        (SMALL._replace(max_memory_bytes=1 << 20), "load(('x = {1} '):rep(30000))",
         "max_memory_bytes", 1 << 20),
        (SMALL._replace(max_memory_bytes=2_000_000), "local t = {} while true do t[#t + 1] = {} end",
         "max_memory_bytes", 2_000_000),
    ],
)  # fmt: skip
def test_limits_are_named(limits: Limits, script: str, limit: str, value: int) -> None:
    with pytest.raises(LimitExceeded) as caught:
        sandbox(script, limits=limits)
    assert (caught.value.limit, caught.value.value) == (limit, value)


def test_the_budget_is_for_each_run() -> None:
    box = sandbox("function Postprocess(arr) for i = 1, 300000 do end return arr end")
    for _ in range(20):
        box.run(scores(1, 1, 2))


def test_tensors_count_as_memory() -> None:
    """16 MB; each Tensor has 4 MB, and garbage makes room."""
    body = "local kept = {{}} for i = 1, 40 do local t = big + i {} end return arr"
    script = (
        "function Postprocess(arr) local row = {{}} for i = 1, 1000 do row[i] = i end local big ="
        " Tensor(row) + Tensor{{row}}:transpose() " + body + " end"
    )
    sandbox(script.format("")).run(scores(1, 1, 2))
    with pytest.raises(LimitExceeded) as caught:
        sandbox(script.format("kept[i] = t")).run(scores(1, 1, 2))
    assert caught.value.limit == "max_memory_bytes"


def test_tensors_and_tables_share_the_limit() -> None:
    half = (
        "local row = {} for i = 1, 1500 do row[i] = i end"
        " local big = Tensor(row) + Tensor{row}:transpose()"
    )
    tables = "local t = {} for i = 1, 500000 do t[i] = i end"
    sandbox(half)
    sandbox(tables)
    with pytest.raises(LimitExceeded) as caught:
        sandbox(f"{half} {tables} print(big)")
    assert caught.value.limit == "max_memory_bytes"


def test_an_input_over_the_limit_is_refused() -> None:
    box = sandbox("function Postprocess(arr) return arr:exp() end")
    with pytest.raises(LimitExceeded):
        box.run(np.zeros((1, 1_000_000, 4), np.float32))
    assert box.run(np.zeros((1, 1, 4), np.float32)).tolist() == [[[1, 1, 1, 1]]]


def test_many_runs_and_failures_leave_nothing_behind() -> None:
    box = sandbox(
        "function Postprocess(arr) if #arr > 50000 then error('x') end return arr:softmax(3) end"
    )
    small, large = scores(1, 128, 9), np.zeros((50, 128, 9), np.float32)

    def some() -> None:
        for _ in range(100):
            box.run(small)
        for _ in range(10):
            with pytest.raises(ScriptFailed):
                box.run(large)

    some()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        some()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB


def reference_fold(values: FloatArray) -> list[float]:
    return [math.fsum(values[..., label].ravel().tolist()) for label in range(values.shape[-1])]


def test_a_shape_as_of_the_dry_run() -> None:
    logits = scores(32, 128, 9)
    box = sandbox(
        """function Postprocess(arr)
            return arr * 0 + arr:fold_axis(3, function(a, x) return a + x end) end"""
    )
    np.testing.assert_allclose(box.run(logits)[3, 4], reference_fold(logits), rtol=1e-4)


def test_the_documented_examples_work(root: Path) -> None:
    text = (root / "docs" / "transforms.md").read_text(encoding="utf-8")
    scripts = [part.split("```")[0] for part in text.split("```lua\n")[1:]]
    assert len(scripts) == 3
    for script in scripts:
        sandbox(script, libs=None).run(scores(2, 5, 9))
