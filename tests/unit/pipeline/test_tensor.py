"""Every method of Tensor against numpy, over random shapes, as a script sees it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lua_scripts import evaluate, literal, printed, sandbox, scores
from nerve.pipeline.transform import ScriptFailed
from nerve.types import FloatArray

Wide = npt.NDArray[np.float64]
FEW = settings(max_examples=15)
NAN, INF = math.nan, math.inf


def arrays(
    *, least_rank: int = 1, least_side: int = 1, odd: bool = False
) -> st.SearchStrategy[FloatArray]:
    """Small arrays; `odd` ones hold NaN and infinities as well."""
    values = st.floats(-30, 30, width=32)
    if odd:
        values |= st.sampled_from([NAN, INF, -INF])
    shapes = npst.array_shapes(min_dims=least_rank, max_dims=4, min_side=least_side, max_side=4)
    return npst.arrays(np.float32, shapes, elements=values)


def same(found: FloatArray, expected: npt.ArrayLike, *, rtol: float = 2e-5) -> None:
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-5)


def fails(expression: str, data: FloatArray, text: str) -> None:
    with pytest.raises(ScriptFailed) as caught:
        evaluate(expression, data)
    assert caught.value.text.removeprefix("transform:1: ") == text


def softmax(x: Wide, axis: int) -> Wide:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def layer_norm(x: Wide, axis: int) -> Wide:
    mean, variance = x.mean(axis=axis, keepdims=True), x.var(axis=axis, keepdims=True)
    return np.asarray((x - mean) / np.sqrt(variance + 0.01))


def lp(p: float) -> Callable[[Wide, int], Wide]:
    def normalize(x: Wide, axis: int) -> Wide:
        norm = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
        return np.asarray(x / np.maximum(norm, 1e-12))

    return normalize


AXIS_METHODS: dict[str, Callable[[Wide, int], npt.ArrayLike]] = {
    "softmax(AXIS)": softmax,
    "sum_axis(AXIS)": lambda x, axis: x.sum(axis=axis),
    "max_axis(AXIS)": lambda x, axis: x.max(axis=axis),
    "argmax(AXIS)": lambda x, axis: x.argmax(axis=axis) + 1,
    "argmin(AXIS)": lambda x, axis: x.argmin(axis=axis) + 1,
    "layer_norm(AXIS, 0.01)": layer_norm,
    "lp_normalize(1, AXIS)": lp(1),
    "lp_normalize(2, AXIS)": lp(2),
    "lp_normalize(2.5, AXIS)": lp(2.5),
    "truncate_axis(AXIS, 2)": lambda x, axis: x.take(range(min(2, x.shape[axis])), axis=axis),
    "truncate_axis(AXIS, 0)": lambda x, axis: x.take([], axis=axis),
    "truncate_axis(AXIS, 99)": lambda x, _: x,
    "map_axis(AXIS, function(s) return s * 2 end)": lambda x, _: 2 * x,
    "map_axis(AXIS, function(s) return Tensor{s:sum(), #s} end)": lambda x, axis: np.stack(
        [[part.sum(), part.size] for part in np.moveaxis(x, axis, 0)], axis=min(axis, 1)
    ),
    "fold_axis(AXIS, 1, function(a, x) return a / 2 + x end)": lambda x, axis: [
        folded(part.ravel()) for part in np.moveaxis(x, axis, 0)
    ],
    "fold_axis(AXIS, math.max)": lambda x, axis: [
        max(0, part.max()) for part in np.moveaxis(x, axis, 0)
    ],
}


def folded(values: Wide) -> float:
    result = 1.0
    for value in values:
        result = result / 2 + value
    return result


@pytest.mark.parametrize("method", sorted(AXIS_METHODS))
@FEW
@given(data=st.data(), array=arrays())
def test_methods_along_an_axis(method: str, data: st.DataObject, array: FloatArray) -> None:
    axis = data.draw(st.integers(0, array.ndim - 1))
    if "Tensor{" in method:
        assume(axis <= 1)  # a part has one axis here, so there are two places to put them
    expected = AXIS_METHODS[method](array.astype(np.float64), axis)
    found = evaluate(f"t:{method.replace('AXIS', str(axis + 1))}", array)
    same(found, expected, rtol=1e-3 if "layer_norm" in method else 2e-5)


@pytest.mark.parametrize("method", sorted(AXIS_METHODS))
@pytest.mark.parametrize(
    ("axis", "text"),
    [(0, "Axis must be >= 1."), (-1, "Axis must be >= 1."), (3, "Axis out of range.")],
)
def test_there_is_no_such_axis(method: str, axis: int, text: str) -> None:
    fails(f"(t:{method.replace('AXIS', str(axis))})", scores(2, 3), text)


@pytest.mark.parametrize("method", sorted(AXIS_METHODS))
def test_an_axis_is_a_whole_number(method: str) -> None:
    name = method.split("(", maxsplit=1)[0]
    place = 2 if name == "lp_normalize" else 1
    for given_axis, problem in (
        ("nil", "number expected, got nil"),
        ("'1'", "number expected, got string"),
        ("1.5", "number has no integer representation"),
        ("t", "number expected, got Tensor"),
    ):
        text = f"bad argument #{place} to '{name}' ({problem})"
        fails(f"(t:{method.replace('AXIS', given_axis)})", scores(2, 3), text)
    same(evaluate(f"t:{method.replace('AXIS', '1.0')}", scores(2, 3)),
         evaluate(f"t:{method.replace('AXIS', '1')}", scores(2, 3)))  # fmt: skip


WHOLE_METHODS: dict[str, Callable[[Wide], npt.ArrayLike]] = {
    "{t:ndim()}": lambda x: [x.ndim],
    "{#t}": lambda x: [x.size],
    "t:shape()": lambda x: x.shape,
    "{t:sum()}": lambda x: [x.sum()],
    "{t:mean() or 99}": lambda x: [x.mean() if x.size else 99],
    "{t:std(0)}": lambda x: [x.std() if x.size else NAN],
    "t:exp()": np.exp,
    "(t * t + 1):log()": lambda x: np.log(x * x + 1),
    "t:transpose()": lambda x: x.T,
    "t:transpose():exp() + 1": lambda x: np.exp(x.T) + 1,
    "t:clamp(-1, 2.5)": lambda x: x.clip(-1, 2.5),
    "t:clamp(nil, 2.5)": lambda x: x.clip(None, 2.5),
    "t:clamp(-1)": lambda x: x.clip(-1, None),
    "t:clamp()": lambda x: x,
    "t:clamp(3, 1)": np.ones_like,
    "t:clamp(0/0, 1)": lambda x: x * NAN,
    "t + 1.5": lambda x: x + 1.5,
    "1.5 + t": lambda x: 1.5 + x,
    "t - 1.5": lambda x: x - 1.5,
    "1.5 - t": lambda x: 1.5 - x,
    "t * 3": lambda x: x * 3,
    "3 * t": lambda x: x * 3,
    "t / 4": lambda x: x / 4,
    "4 / (t + 40)": lambda x: 4 / (x + 40),
    "{t == t + 0 and 1 or 0}": lambda _: [1],
    "{t ~= t + 1 and 1 or 0}": lambda x: [float(x.size > 0)],
    "{t == 'x' and 1 or 0}": lambda _: [0],
    "{type(t) == 'userdata' and 1 or 0}": lambda _: [1],
}


@pytest.mark.parametrize("expression", sorted(WHOLE_METHODS))
@FEW
@given(array=arrays(least_rank=0, least_side=0))
@example(array=np.zeros((2, 0), np.float32))
def test_methods_of_the_whole(expression: str, array: FloatArray) -> None:
    with np.errstate(all="ignore"):
        wide = array.astype(np.float64)
        if "std" in expression and not array.size:
            return  # 0 / 0, which numpy warns of
        same(evaluate(expression, array), WHOLE_METHODS[expression](wide))


@FEW
@given(array=arrays())
def test_least_and_greatest(array: FloatArray) -> None:
    same(evaluate("{t:min(), t:max()}", array), [array.min(), array.max()])


@FEW
@given(array=arrays(), ddof=st.sampled_from([0, 1, 0.5]))
def test_std(array: FloatArray, ddof: float) -> None:
    assume(array.size > ddof)
    same(evaluate(f"{{t:std({ddof})}}", array), [array.astype(np.float64).std(ddof=ddof)])


@FEW
@given(shapes=npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3))
@pytest.mark.parametrize("operator", ["+", "-", "*", "/"])
def test_operators_broadcast(operator: str, shapes: npst.BroadcastableShapes) -> None:
    left_shape, right_shape = shapes.input_shapes
    assume(right_shape != ())  # a table has an axis
    left, right = scores(*left_shape), np.abs(scores(*right_shape)) + 1
    expected = {
        "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide
    }[operator](left, right)  # fmt: skip
    same(evaluate(f"t {operator} Tensor({literal(right.tolist())})", left), expected)


@FEW
@given(array=arrays(least_rank=2), data=st.data())
def test_mean_pool(array: FloatArray, data: st.DataObject) -> None:
    mask = data.draw(
        npst.arrays(np.float32, array.shape[:-1], elements=st.floats(0.5, 2, width=32))
    )
    found = evaluate(f"t:mean_pool(Tensor({literal(mask.tolist())}))", array)
    inner = tuple(range(1, array.ndim - 1))
    weights = mask.astype(np.float64)[..., np.newaxis]
    same(found, (array * weights).sum(axis=inner) / weights.sum(axis=inner))


@FEW
@given(array=arrays())
def test_from_nested_tables(array: FloatArray) -> None:
    table = literal(array.tolist())
    same(evaluate(f"Tensor({table})", scores(1)), array)
    same(evaluate(f"Tensor.new({table})", scores(1)), array)
    same(evaluate(f"(Tensor({table}) == t) and {{1}} or {{0}}", array), [1])


@FEW
@given(array=arrays(odd=True), axis=st.integers(1, 4), name=st.sampled_from(["argmax", "argmin"]))
@example(array=np.array([[NAN, -INF], [INF, NAN]], np.float32), axis=2, name="argmax")
@example(array=np.array([[NAN, -INF], [INF, NAN]], np.float32), axis=2, name="argmin")
@example(array=np.array([[NAN, NAN], [INF, NAN]], np.float32), axis=2, name="argmax")
def test_places_skip_nan(array: FloatArray, axis: int, name: str) -> None:
    assume(axis <= array.ndim)
    if np.isnan(array).all(axis=axis - 1).any():
        fails(f"(t:{name}({axis}))", array, f"{name}: nothing but NaN along axis {axis}")
        return
    sign = 1 if name == "argmax" else -1
    lines = np.moveaxis(array, axis - 1, -1)
    expected = np.empty(lines.shape[:-1])
    for place in np.ndindex(expected.shape):
        known = [(-sign * value, at) for at, value in enumerate(lines[place], 1) if value == value]
        expected[place] = min(known)[1]
    same(evaluate(f"t:{name}({axis})", array), expected)


@FEW
@given(array=arrays(odd=True))
def test_clamp_of_what_is_no_number(array: FloatArray) -> None:
    expected = np.fmin(np.fmax(array, np.float32(-1)), np.float32(2))
    same(evaluate("t:clamp(-1, 2)", array), expected)


@FEW
@given(array=arrays(odd=True))
def test_extremes_refuse_nan(array: FloatArray) -> None:
    if np.isnan(array).any():
        text = "Min max error: Undefined ordering between a tested pair of values."
        fails("{t:max()}", array, text)
        fails("{t:min()}", array, text)
        fails("(t:max_axis(1))", array, text)
    else:
        same(evaluate("{t:min(), t:max()}", array), [array.min(), array.max()])


EMPTY, PAIR = np.zeros((2, 0), np.float32), np.array([[1, 2], [3, 4]], np.float32)
ERRORS = [
    ("{t:min()}", EMPTY, "Min max error: Empty input."),
    ("{t:max()}", EMPTY, "Min max error: Empty input."),
    ("(t:max_axis(2))", EMPTY, "Min max error: Empty input."),
    ("(t:argmax(2))", EMPTY, "argmax: axis 2 is empty"),
    ("(t:argmin(2))", EMPTY, "argmin: axis 2 is empty"),
    ("(t:layer_norm(2, 1))", EMPTY, "layer_norm: axis 2 is empty"),
    ("(t:lp_normalize(2, 1))", EMPTY, "lp_normalize: the Tensor is empty"),
    ("(t:lp_normalize(0, 1))", PAIR, "lp_normalize: p must not be 0"),
    ("(t:transpose():clamp(0, 1))", PAIR, "Array must be contiguous"),
    ("{t:std()}", PAIR, "bad argument #1 to 'std' (number expected, got nil)"),
    ("{t:std(5)}", PAIR, "std: ddof must be from 0 to the number of elements, 4; got 5"),
    ("{t:std(-1)}", PAIR, "std: ddof must be from 0 to the number of elements, 4; got -1"),
    ("(t:clamp('x'))", PAIR, "bad argument #1 to 'clamp' (nil or number expected, got string)"),
    ("(t:truncate_axis(1, -1))", PAIR, "truncate_axis: the length must be at least 0, got -1"),
    (
        "(t:truncate_axis(1, 1.5))",
        PAIR,
        "bad argument #2 to 'truncate_axis' (number has no integer representation)",
    ),
    ("(t:layer_norm(1))", PAIR, "bad argument #2 to 'layer_norm' (number expected, got nil)"),
    ("(t + Tensor{1, 2, 3})", PAIR, "Shape [2, 2] not broadcastable to [3]"),
    ("(t + 'x')", PAIR, "Expected either number or Tensor."),
    ("(t * {})", PAIR, "Expected either number or Tensor."),
    ("('1' - t)", PAIR, "Expected either number or Tensor."),
    ("(nil / t)", PAIR, "Expected either number or Tensor."),
    ("(-t)", PAIR, "attempt to perform arithmetic on a Tensor value (local 't')"),
    ("(t < t)", PAIR, "attempt to compare two Tensor values"),
    ("(t.softmax(1))", PAIR, "calling 'softmax' on bad self (Tensor expected, got number);"
     " is it called with ':'?"),
    ("(t:sqrt())", PAIR, "attempt to call a nil value (method 'sqrt')"),
    ("(t:mean_pool(1))", PAIR, "bad argument #1 to 'mean_pool' (Tensor expected, got number)"),
    ("(t:mean_pool(t))", PAIR, "mean_pool: the mask must have one axis less than the Tensor, which"
     " must have 2 or more; got shapes [2, 2] and [2, 2]"),
    ("(t:mean_pool(Tensor{1, 2, 3}))", PAIR, "Shape [3] not broadcastable to [2, 2]"),
    ("(t:map_axis(1))", PAIR, "bad argument #2 to 'map_axis' (function expected, got nil)"),
    ("(t:map_axis(2, function(s) return s end))", EMPTY, "stack error: there is nothing to put"
     " together"),
    ("(t:map_axis(1, function(s) n = (n or 0) + 1 return s:truncate_axis(1, n) end))", PAIR,
     "stack error: unequal shapes [1] and [2]"),
    ("(t:map_axis(1, function() end))", PAIR, "map_axis: the function must return a Tensor or a"
     " table of numbers: Unknown type: nil"),
    ("(t:map_axis(1, function() error('mine', 0) end))", PAIR, "mine"),
    ("(t:fold_axis(1, 0))", PAIR, "bad argument #3 to 'fold_axis' (function expected, got nil)"),
    ("(t:fold_axis(1, 0, function() return 'x' end))", PAIR, "fold_axis: the function must return"
     " a number, got string"),
    ("(Tensor(1))", PAIR, "Tensor: Unknown type: number"),
    ("(Tensor('x'))", PAIR, "Tensor: Unknown type: string"),
    ("(Tensor(true))", PAIR, "Tensor: Unknown type: boolean"),
    ("(Tensor{{1, 2}, {3}})", PAIR, "Tensor: tables of one level must have the same length, found 2"
     " and 1"),
    ("(Tensor{1, 'x'})", PAIR, "Tensor: number expected, got string"),
    ("(Tensor{1, {2}})", PAIR, "Tensor: number expected, got table"),
    ("(Tensor{{1}, 2})", PAIR, "Tensor: table expected, got number"),
    ("(Tensor{{1}, {{2}}})", PAIR, "Tensor: number expected, got table"),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "array", "text"), ERRORS, ids=[each[0] for each in ERRORS])
def test_errors_say_what_is_wrong(expression: str, array: FloatArray, text: str) -> None:
    fails(expression, array, text)


def test_an_error_tells_its_line() -> None:
    with pytest.raises(ScriptFailed, match=r"^transform:2: Axis out of range\.$"):
        sandbox("function Postprocess(t)\n local x = t:softmax(4)\n return x end").run(
            scores(1, 2, 3)
        )


def test_tables_without_numbers() -> None:
    assert evaluate("Tensor{}", PAIR).shape == (0,)
    assert evaluate("Tensor{{}, {}}", PAIR).shape == (2, 0)


@pytest.mark.parametrize(
    "method", sorted(each for each in AXIS_METHODS if "_axis(AXIS, " not in each)
)
def test_a_short_last_axis_of_many_elements(method: str) -> None:
    """It is moved to the front for numpy; what comes of it lies in memory as ever."""
    data = scores(16, 32, 9)
    found = evaluate("t:" + method.replace("AXIS", "3"), data)
    same(found, AXIS_METHODS[method](data.astype(np.float64), 2), rtol=1e-4)
    assert found.flags.c_contiguous
    assert np.array_equal(data, scores(16, 32, 9))


def test_as_text() -> None:
    """Numbers as short as they can be; the middle left out from 500 elements on."""
    assert printed("print(Tensor{{1, 2.5}, {-0.1, 1e10}})") == [
        "[[1, 2.5],\\n [-0.1, 10000000000]]"
    ]
    count = "local t = {} for i = 1, %d do t[i] = i end print(Tensor(t))"
    assert "..." not in printed(count % 499)[0]
    assert "..." in printed(count % 500)[0]
    deep = printed(
        "local t = {1, 2, 3, 4, 5} for i = 1, 5 do t = {t, t, t, t, t} end print(Tensor(t))"
    )
    assert deep == ["Tensor of shape [5, 5, 5, 5, 5, 5]"]


def test_infinite_bounds_and_scores() -> None:
    data = np.array([[-INF, 0, 1], [-INF, -INF, 2]], np.float32)
    same(evaluate("t:softmax(2)", data), softmax(data.astype(np.float64), 1))
    same(evaluate("t:clamp(-math.huge, 1)", data), data.clip(None, 1))


def test_methods_leave_the_receiver_as_it_is() -> None:
    data = scores(2, 3, 4)
    before = data.copy()
    for expression in sorted(AXIS_METHODS):
        if "Tensor{" not in expression:
            evaluate(f"t:{expression.replace('AXIS', '2')}", data)
    assert np.array_equal(data, before)
