import re
import shutil
import sys
import types
from pathlib import Path

import bitsandbytes.functional as nf4
import pytest
import torch
from setuptools import Distribution

from gpro_empathy.files import UserError
from gpro_empathy.training import nf4_rows, unsloth_engine

ROOT = Path(__file__).parents[2]
WIDTH = 128


def table():
    """Return the 16 numbers that stand in the kernel's source."""
    (numbers,) = re.findall(r"CODES\[16\] = \{([^}]*)\}", nf4_rows.SOURCE.read_text())
    return torch.tensor([float(number) for number in numbers.replace("f", "").split(",")])


def product(x, codes, scales, out):
    """Do on a processor what the kernel's source says.

    The high half of a byte comes first, and there is a scale for every 64.
    """
    packed = codes.flatten().long()
    of_64 = table()[torch.stack([packed >> 4, packed & 15], dim=1)].view(-1, 64)
    out.copy_((x.float() @ (of_64 * scales[:, None]).view(-1, x.shape[1]).T).to(out.dtype))


def quantised(columns, nested, seed=0):
    weight = torch.randn(columns, WIDTH, generator=torch.Generator().manual_seed(seed))
    return nf4.quantize_4bit(weight.bfloat16(), quant_type="nf4", compress_statistics=nested)


def fused(nested):
    """Return weights as vLLM holds them.

    They are two matrices one after the other, with their states and offsets.
    """
    parts = [quantised(64, nested, 1), quantised(32, nested, 2)]
    weight = torch.cat([codes for codes, _ in parts])
    weight.bnb_quant_state = {i: state for i, (_, state) in enumerate(parts)}
    offsets = torch.tensor([0, *torch.tensor([len(codes) for codes, _ in parts]).cumsum(0).tolist()])
    whole = torch.cat([nf4.dequantize_4bit(codes, state) for codes, state in parts])
    return weight, offsets, whole


def x(rows, dtype=torch.bfloat16):
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(rows)).to(dtype)


# The packed weights


def test_the_kernel_has_the_numbers_of_bitsandbytes():
    assert torch.equal(table(), nf4.get_4bit_type("nf4", "cpu"))


@pytest.mark.parametrize("nested", [False, True])
def test_codes_and_joined_scales_are_the_weights_that_bitsandbytes_dequantises(nested):
    weight, _, whole = fused(nested)
    scales = nf4_rows.joined_scales(weight.bnb_quant_state)
    assert scales.dtype == torch.float32
    assert len(scales) == whole.numel() / 64
    identity = torch.eye(WIDTH)
    out = torch.empty(WIDTH, len(whole))
    product(identity, weight, scales, out)
    assert torch.equal(out.T.bfloat16(), whole)


def test_other_quantisations_have_no_joined_scales():
    _, wide = nf4.quantize_4bit(torch.ones(8, WIDTH), blocksize=128, quant_type="nf4")
    _, fp4 = nf4.quantize_4bit(torch.ones(8, WIDTH), quant_type="fp4")
    _, plain = quantised(8, nested=False)
    assert nf4_rows.joined_scales({0: plain, 1: wide}) is None
    assert nf4_rows.joined_scales({0: fp4}) is None


def test_a_product_with_other_numbers_is_refused():
    nf4_rows.check(product, "cpu")

    def low_half_first(x, codes, scales, out):
        product(x, (codes >> 4) | (codes << 4), scales, out)

    with pytest.raises(UserError, match=r"off by \d"):
        nf4_rows.check(low_half_first, "cpu")
    with pytest.raises(UserError, match="off by nan"):
        nf4_rows.check(lambda x, codes, scales, out: out.fill_(float("nan")), "cpu")


# In the place of vLLM's operator


@pytest.fixture
def calls(monkeypatch):
    """Define vLLM's operator as vLLM does, on a processor.

    The product is put in its place, and which of them runs is noted.
    """
    noted = []

    def of_bitsandbytes(x, weight, offsets, out):
        noted.append(("bitsandbytes", len(x)))
        begin = 0
        for i, state in weight.bnb_quant_state.items():
            end = begin + state.shape[0]
            part = nf4.dequantize_4bit(weight[offsets[i] : offsets[i + 1]], state)
            out[:, begin:end] = x @ part.to(x.dtype).T
            begin = end

    def ours(x, codes, scales, out):
        noted.append(("ours", len(x)))
        product(x, codes, scales, out)

    defined = torch.library.Library("vllm", "FRAGMENT")
    defined.define("apply_bnb_4bit(Tensor x, Tensor weight, Tensor offsets, Tensor(a3!) out) -> ()")
    defined.impl("apply_bnb_4bit", of_bitsandbytes, "CPU")
    monkeypatch.setattr(nf4_rows, "_LIBRARIES", [])
    nf4_rows.replace(of_bitsandbytes, ours, "CPU")
    yield noted
    for library in (*nf4_rows._LIBRARIES, defined):
        library._destroy()


@pytest.mark.parametrize(
    ("rows", "dtype", "which"),
    [
        (1, torch.bfloat16, "ours"), (8, torch.bfloat16, "ours"),
        (9, torch.bfloat16, "bitsandbytes"), (3, torch.float32, "bitsandbytes"),
    ],
)  # fmt: skip
def test_few_rows_of_bfloat16_are_multiplied_by_the_product_and_others_by_bitsandbytes(calls, rows, dtype, which):
    weight, offsets, whole = fused(nested=True)
    out = torch.empty(rows, len(whole), dtype=dtype)
    torch.ops.vllm.apply_bnb_4bit(x(rows, dtype), weight, offsets, out)
    assert calls == [(which, rows)]
    torch.testing.assert_close(out, x(rows, dtype) @ whole.to(dtype).T, rtol=0.02, atol=0.1)


def test_widths_that_the_kernel_does_not_take_are_left_to_bitsandbytes():
    out = torch.empty(2, 96, dtype=torch.bfloat16)
    assert nf4_rows.fits(x(2), out)
    assert not nf4_rows.fits(x(2)[:, :96], out)
    assert not nf4_rows.fits(x(2), out[:, :80])


# Compiling


@pytest.fixture
def nvcc(tmp_path, monkeypatch):
    """Return what puts a stand-in for nvcc into PATH."""

    def put(script):
        path = tmp_path / "bin/nvcc"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    return put


def test_the_library_is_compiled_once_for_a_gpu(nvcc, tmp_path):
    # The library is named behind -o.
    nvcc(f'echo "$@" >> {tmp_path}/calls; while [ "$1" != -o ]; do shift; done; echo made > "$2"')
    first = nf4_rows.compiled(9, 0, tmp_path / "work")
    assert first.read_text() == "made\n"
    assert nf4_rows.compiled(9, 0, tmp_path / "work") == first
    assert nf4_rows.compiled(8, 9, tmp_path / "work") != first
    asked = (tmp_path / "calls").read_text().splitlines()
    assert ["sm_90" in line for line in asked] == [True, False]
    assert all(line.endswith("nf4_rows.cu") for line in asked)


def test_what_nvcc_says_is_told_and_nothing_is_left(nvcc, tmp_path):
    nvcc("echo 'sm_75 is too old' >&2; exit 3")
    with pytest.raises(UserError, match=r"bin/nvcc\b.*\b3\b.*\(sm_75 is too old\)$"):
        nf4_rows.compiled(7, 5, tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


def test_nvcc_of_the_package_is_found_where_the_machine_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    package = types.ModuleType("nvidia")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "nvidia", package)
    with pytest.raises(UserError, match=r"nvcc.*PATH"):
        nf4_rows.compiler()
    (tmp_path / "cu13/bin").mkdir(parents=True)
    (tmp_path / "cu13/bin/nvcc").touch()
    assert nf4_rows.compiler()[0] == str(tmp_path / "cu13/bin/nvcc")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_the_source_compiles(tmp_path):
    assert callable(nf4_rows.load(nf4_rows.compiled(9, 0, tmp_path)))


def test_a_file_that_is_no_library_is_told(tmp_path):
    (tmp_path / "some.so").write_text("nothing")
    with pytest.raises(UserError, match=r"some\.so"):
        nf4_rows.load(tmp_path / "some.so")


# Starting


@pytest.mark.parametrize("why", ["no vLLM", "no nvcc"])
def test_bitsandbytes_stays_where_the_product_cannot_be_had_and_a_line_says_why(why, tmp_path, monkeypatch, capsys):
    def no_nvcc():
        raise UserError("there is no nvcc\nanywhere")

    if why == "no nvcc":
        monkeypatch.setattr(nf4_rows, "vllms_own", lambda: None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        monkeypatch.setattr(nf4_rows, "compiler", no_nvcc)
    else:
        for name in ("vllm", "vllm_bnb_plugin"):
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(nf4_rows, "replace", lambda *_: pytest.fail("replaced"))
    nf4_rows.install(tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    said = {"no nvcc": "there is no nvcc anywhere", "no vLLM": "neither vLLM nor vllm-bnb-plugin has the operator"}
    assert line.startswith(
        f"NF4 weights in vLLM: bitsandbytes' product, as the faster one for few rows failed ({said[why]}"
    )


def test_the_product_that_is_used_is_told(tmp_path, monkeypatch, capsys):
    replaced = []
    monkeypatch.setattr(nf4_rows, "vllms_own", lambda: "theirs")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(nf4_rows, "compiled", lambda major, minor, folder: folder / f"{major}{minor}")
    monkeypatch.setattr(nf4_rows, "load", lambda path: path.name)
    monkeypatch.setattr(nf4_rows, "check", lambda product, device: None)
    monkeypatch.setattr(nf4_rows, "replace", lambda *arguments: replaced.append(arguments))
    nf4_rows.install(tmp_path)
    assert replaced == [("theirs", "90", "CUDA")]
    assert capsys.readouterr().out == (
        "NF4 weights in vLLM: this package's product for up to 8 rows, bitsandbytes' for more\n"
    )


@pytest.mark.parametrize(
    ("four_bit", "vllm_mode", "order"),
    [(True, "colocate", ["install", "load"]), (False, "colocate", ["load"]), (True, "none", ["load"])],
)
def test_unsloth_is_started_after_it_where_its_vllm_has_4_bit_weights(
    settings, monkeypatch, four_bit, vllm_mode, order
):
    begun = []
    unsloth = types.ModuleType("unsloth")
    unsloth.FastLanguageModel = types.SimpleNamespace(
        from_pretrained=lambda **_: (begun.append("load"), None), get_peft_model=lambda model, **_: model
    )
    monkeypatch.setitem(sys.modules, "unsloth", unsloth)
    monkeypatch.setattr(nf4_rows, "install", lambda folder: begun.append("install"))
    policy = settings.policy.model_copy(update={"load_in_4bit": four_bit})
    unsloth_engine.load(policy, settings.train_grpo.model_copy(update={"vllm_mode": vllm_mode}), Path("weights"), 1)
    assert begun == order


def test_an_installed_package_brings_the_source(monkeypatch):
    monkeypatch.chdir(ROOT)
    distribution = Distribution()
    distribution.parse_config_files(["pyproject.toml"])
    distribution.include_package_data = False  # what git tracks is no matter; what pyproject.toml names is
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    files_of = {package: names for package, _, _, names in build.data_files}
    assert files_of["gpro_empathy.training"] == [nf4_rows.SOURCE.name]
