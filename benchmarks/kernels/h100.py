"""An H100 that does not exist, for which XLA compiles all the same."""

import os

os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # the plug-in would look for a driver
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from jax.experimental import topologies

# What XLA asks of a device, as one answers: cudaGetDeviceProperties of an H100 SXM, CUDA 13.
TARGET = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def mesh(devices: int = 1) -> jax.sharding.Mesh:
    """A mesh of so many of them, its axis ``data``."""
    topology = topologies.get_topology_desc(platform="cuda", target_config=TARGET, topology=f"1x1x{devices}")
    return jax.sharding.Mesh(np.array(topology.devices), ("data",))
