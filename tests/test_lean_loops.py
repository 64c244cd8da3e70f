"""What accelerators are given to do in a solve, as far as it can be seen without one."""

import re

import jax
import pytest

from benchmarks.kernels.program import loops, size_of
from benchmarks.kernels.steps import on_a_gpu, train_step


def within_loops(module: str) -> str:
    """The lines of a StableHLO module that stand in a loop, or in a function that one calls."""
    module = re.sub(r" loc\(.*\)$", "", module, flags=re.MULTILINE)
    functions = dict(re.findall(r"^  func\.func \w+ @([\w.]+)\(.*?\{\n(.*?)^  \}$", module, re.MULTILINE | re.DOTALL))
    loop = re.compile(r"^( *)[^\n]*stablehlo\.while.*?^\1\}$", re.MULTILINE | re.DOTALL)
    inside = "\n".join(found.group() for body in functions.values() for found in loop.finditer(body))
    seen: set[str] = set()
    while new := {name for name in re.findall(r"(?<!custom_)call @([\w.]+)", inside) if name not in seen}:
        seen |= new
        inside += "\n".join(functions[name] for name in new)
    return inside


@pytest.mark.parametrize("preset", ["cifar10-tutorial", "cifar10-fast"])
def test_no_loop_of_a_training_step_calls_a_library(preset):
    step, forms = train_step(preset, 4)
    with on_a_gpu():
        exported = jax.export.export(step, platforms=("cuda", "tpu"))(*forms)
    inside = within_loops(str(exported.mlir_module()))
    assert "stablehlo.convolution" in inside
    assert "custom_call" not in inside


def test_what_stands_in_a_loop_is_found():
    solve = jax.export.export(
        jax.jit(lambda a, b: jax.lax.fori_loop(0, 3, lambda _, b: jax.numpy.linalg.solve(a, b), b)), platforms=("cuda",)
    )
    square = jax.ShapeDtypeStruct((4, 4), "float32")
    assert "custom_call" in within_loops(str(solve(square, square).mlir_module()))


def test_a_loop_s_kernels_and_bytes_are_counted():
    program = """HloModule m

%body (p: (s32[], f32[8,4], f32[4,4])) -> (s32[], f32[8,4], f32[4,4]) {
  %p = (s32[], f32[8,4], f32[4,4]) parameter(0)
  %k = s32[] get-tuple-element(%p), index=0
  %z = f32[8,4]{1,0} get-tuple-element(%p), index=1
  %w = f32[4,4]{1,0} get-tuple-element(%p), index=2
  %one = s32[] constant(1)
  %next = s32[] add(%k, %one)
  %product = f32[8,4]{1,0} custom-call(%z, %w), custom_call_target="__cublas$gemm"
  %tanh = f32[8,4]{1,0} fusion(%product), kind=kLoop, calls=%fused
  ROOT %out = (s32[], f32[8,4], f32[4,4]) tuple(%next, %tanh, %w)
}

%condition (p: (s32[], f32[8,4], f32[4,4])) -> pred[] {
  ROOT %go = pred[] constant(true)
}

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %loop = (s32[], f32[8,4], f32[4,4]) while(%a), condition=%condition, body=%body
  ROOT %z = f32[8,4]{1,0} get-tuple-element(%loop), index=1
}
"""
    (loop,) = loops(program)
    assert loop.kernels == {"add": 1, "__cublas$gemm": 1, "fusion": 1}
    state, weight = size_of("f32[8,4]"), size_of("f32[4,4]")
    assert (state, weight) == (128, 64)
    assert loop.moved == (4 + 4 + 4) + (state + weight + state) + 2 * state
    assert loop.least == (4 + state) + (4 + state + weight) + 2 * state
