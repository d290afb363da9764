"""Compare the product of few rows, compiled for this GPU, with bitsandbytes' own numbers."""

import bitsandbytes.functional as nf4
import pytest
import torch

from gpro_empathy.training import nf4_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch finds none"),
]


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    library = nf4_rows.compiled(*torch.cuda.get_device_capability(), tmp_path_factory.mktemp("nf4_rows"))
    return nf4_rows.load(library)


# Columns on both sides of where a warp takes 32 rows of the weights.
@pytest.mark.parametrize("columns", [32, 1024, nf4_rows.WIDE])
@pytest.mark.parametrize("rows", range(1, nf4_rows.MOST_ROWS + 1))
def test_product_is_that_of_the_dequantised_weights_and_writes_nothing_beside_it(product, rows, columns):
    torch.manual_seed(rows)
    x, weight = (torch.randn(n, 512, device="cuda", dtype=torch.bfloat16) for n in (rows, columns))
    codes, state = nf4.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    wider = torch.zeros(rows, columns + 64, device="cuda", dtype=torch.bfloat16)
    product(x, codes, nf4_rows.scales(state), wider[:, :columns])
    exact = x.double() @ nf4.dequantize_4bit(codes, state).double().T
    difference = (wider[:, :columns].double() - exact).norm() / exact.norm()
    assert difference < nf4_rows.LARGEST_DIFFERENCE
    assert not wider[:, columns:].any()
