"""Without a card: the door to cuda-bindings says that there is none, and calls nothing that the package has not."""

import ast
from pathlib import Path

import pytest
from cuda.bindings import driver, nvrtc, runtime

from models.engines.gpu import cuda_bindings
from models.engines.gpu.cuda_bindings import CudaDevice
from models.engines.gpu.device import DeviceError
from models.engines.gpu.driver import driver_obstacle

MODULES = {"driver": driver, "nvrtc": nvrtc, "runtime": runtime}


@pytest.mark.skipif(driver_obstacle() is None, reason="this machine has a card")
def test_without_a_card_it_says_so_before_any_library_is_touched() -> None:
    with pytest.raises(DeviceError, match=r"no NVIDIA driver|does not start|sees no card"):
        CudaDevice()


def test_every_name_it_uses_exists_in_the_package() -> None:
    tree = ast.parse(Path(cuda_bindings.__file__).read_text(encoding="utf-8"))
    used = {
        (node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute | ast.Name)
    }
    named = {(module, name) for module, name in used if module in MODULES}
    assert len(named) > 25
    for module, name in sorted(named):
        assert hasattr(MODULES[module], name), f"{module}.{name}"
    errors = {one.name for kind in (runtime.cudaError_t, driver.CUresult) for one in kind}
    assert errors >= cuda_bindings.STICKY
