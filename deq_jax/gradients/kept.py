"""What a ``custom_vjp`` keeps of its own arguments for its backward function."""

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import PyTree


def kept_for_backward(arguments: PyTree) -> PyTree:
    """``arguments`` themselves, under a name by which JAX does not recognise them as arguments.

    Of an argument that it recognises it keeps only the place. That it counts wrongly, up to 0.12 at least, once a loop
    has moved constants of the function's inside in front of the arguments: second derivatives through ``lax.scan`` then
    took one array for another. A name costs nothing: no operation of the compiled program, and a loop keeps what does
    not change in it once, as before.
    """
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, "kept_for_backward"), arguments)
