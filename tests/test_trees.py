import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import deq_jax
from deq_jax import nn
from deq_jax.states import trees


def test_flattening_keeps_samples_apart_and_is_undone():
    z = {"a": jnp.arange(24.0).reshape(2, 3, 4), "b": jnp.arange(2.0)}
    flat = trees.flatten_samples(z)
    assert {name: leaf.shape for name, leaf in flat.items()} == {"a": (2, 12), "b": (2, 1)}
    restored = trees.restore_samples(flat, z)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a == b).all(), restored, z)))


def test_dot_sums_over_every_leaf_of_a_sample():
    a = {"u": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "v": jnp.array([[5.0], [6.0]])}
    np.testing.assert_array_equal(trees.sample_dot(a, a), [30.0, 61.0])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_sums_accumulate_in_float32(dtype):
    # 4096 ones: float16 would overflow in the squares of 100, bfloat16 stop counting at 256.
    ones = jnp.full((1, 4096), 100, dtype)
    dot = trees.sample_dot(ones, ones)
    assert dot.dtype == jnp.float32
    assert dot[0] == 4096e4


def test_where_is_not_spoiled_by_the_side_not_taken():
    a, b = jnp.array([[1.0], [jnp.nan]]), jnp.array([[jnp.inf], [2.0]])
    np.testing.assert_array_equal(trees.sample_where(jnp.array([True, False]), a, b), [[1.0], [2.0]])


def test_batch_size_refuses_what_is_no_state():
    with pytest.raises(ValueError, match=r"share their leading axis.*'a'.*\(2, 3\).*'b'.*\(4,\)"):
        trees.batch_size({"a": jnp.ones((2, 3)), "b": jnp.ones(4)})
    with pytest.raises(ValueError, match="say batched=False; else add a batch axis"):
        trees.batch_size(jnp.float32(1.0))
    with pytest.raises(TypeError, match="int32"):
        trees.batch_size(jnp.arange(3))
    with pytest.raises(TypeError, match="no arrays"):
        trees.batch_size({})


@pytest.mark.parametrize(
    ("fz", "message"),
    [
        ((jnp.ones((2, 3)),), "must return the structure"),
        (jnp.ones((2, 4)), r"z0 is float32\[2, 3\], f\(z0\) is float32\[2, 4\]"),
        (jnp.ones((2, 3), jnp.bfloat16), r"f\(z0\) is bfloat16\[2, 3\]"),
    ],
)
def test_another_form_is_named(fz, message):
    with pytest.raises(TypeError, match=message):
        trees.check_same_form(fz, jnp.ones((2, 3)))


Z0 = jnp.zeros((3, 4))
SMALL = jnp.ones((3, 3))


def raising(error):
    def f(z):
        raise error

    return f


def advice(run):
    """The lines on ``z0`` in what a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # of any kind: that is the question
        run()
    return [note for note in getattr(caught.value, "__notes__", []) if "Where f wants another" in note]


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "checkpoint"])
@pytest.mark.parametrize("solve", [deq_jax.fixed_point, deq_jax.anderson, deq_jax.check_independence])
@pytest.mark.parametrize(
    "f",
    [
        lambda z: z @ SMALL,
        lambda z: z + SMALL,
        lambda z: np.ones((3, 3)) * z,
        lambda z: z.reshape(7, 2),
        lambda z: jnp.einsum("bn,mn->bm", z, SMALL),
        lambda z: jnp.concatenate([z, SMALL]),
        lambda z: z[:, :, 0],
        lambda z: z["fast"],
        lambda z: z.fast,
    ],
)
def test_an_error_that_may_be_about_the_form_of_the_state_names_it(transform, solve, f):
    (line,) = advice(lambda: solve(transform(f), Z0))
    assert "a state z of the form of z0: float32[3, 4]" in line


def test_so_does_one_of_flax_linen():
    class Cell(linen.Module):
        @linen.compact
        def __call__(self, z, x):
            return linen.Dense(4)(z) + x

    layer = nn.linen.DEQ(Cell())
    variables = layer.init(jax.random.key(0), Z0)
    assert advice(lambda: layer.apply(variables, jnp.ones((3, 7))))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"])
@pytest.mark.parametrize(
    "f",
    [
        raising(ValueError("the temperature of this shape must be positive")),
        raising(TypeError("no such axis")),
        raising(RuntimeError("out of patience")),
        lambda z: z * (1 / 0),
        lambda z: z * {"a": 1}["b"],
        lambda z: z * int("many"),
        lambda z: jnp.sin(None),
        lambda z: z if z.sum() > 0 else -z,
        lambda z: np.asarray(z),
        lambda z: deq_jax.anderson(lambda z: z, z, tol=-1.0).value,
    ],
)
def test_what_is_not_about_it_is_left_alone(transform, f):
    assert not advice(lambda: deq_jax.fixed_point(transform(f), Z0))


def test_a_pair_is_taken_for_a_state_and_what_else_is_told():
    with pytest.raises(TypeError, match=r"has_aux=True to the fixed_point.*give a solver lambda z: f\(z\)\[0\]"):
        deq_jax.fixed_point(lambda z: (z, {"norm": 1.0}), Z0)
    with pytest.raises(TypeError, match="structure") as caught:
        deq_jax.fixed_point(lambda z: {"z": z}, Z0)
    assert "has_aux" not in str(caught.value)
