import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deq_jax import trees


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
