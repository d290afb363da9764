"""Check the plan of docs/scaling.md.

It is held against the measurements that it rests on, published sizes, and sums by hand.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import scaling
from gpro_empathy import files
from gpro_empathy.machine import GIB
from gpro_empathy.tools import gpu_memory

ROOT = Path(__file__).parents[2]

N_8B, N_70B = 8_030_261_248, 70_553_706_496
LORA_8B, LORA_70B = 83_886_080, 414_187_520
UNSLOTH, OWN, SERVER = scaling.UNSLOTH, scaling.OWN, scaling.SERVER
STEP_8B = replace(
    scaling.CURRENT, prompts=4, group=8, in_forward=8, prompt=320, completion=128, rank=32, optimizer="adamw_torch"
)
STEP_70B = replace(STEP_8B, model="meta-llama/Llama-3.1-70B-Instruct")
BY_NAME = dict(
    zip(
        [
            "measured",
            "unsloth",
            "own 1",
            "own 8",
            "server 4+4",
            "own 64",
            "server 56+8",
            "70B 1",
            "70B 4+4",
            "70B 56+8",
        ],
        scaling.PLANS,
        strict=True,
    )
)


def whole(plan):
    return sum(scaling.seconds(plan).values())


# The page


@pytest.fixture(scope="module")
def page():
    return (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", scaling.TABLES, ids=lambda table: table.__name__)
def test_page_shows_what_the_script_prints(page, table):
    assert table() in page


def test_formulas_of_the_page_have_the_constants_of_the_code(page):
    adam, paged = gpu_memory.BYTES_LORA["adamw_torch"], gpu_memory.BYTES_LORA["paged_adamw_8bit"]
    assert f"| {adam} a weight with `adamw_torch`, {paged} with `paged_adamw_8bit`" in page
    assert f"in 4 bits {gpu_memory.BYTES_4BIT:.3f} a weight of the projections" in page
    assert f"+ {gpu_memory.BYTES_LOGIT} V a response token" in page
    assert f"| {gpu_memory.OVERHEAD} GiB, an allowance |" in page
    assert f"| {2 * UNSLOTH.passes} N, or {2 * SERVER.passes} N with a server;" in page
    for name, engine in (("own (`", OWN), ("Unsloth, vLLM", UNSLOTH), ("TRL, server", SERVER)):
        end = f"| {2 * engine.passes} N | {'P + K C' if engine.packed else 'K (P + C)'} |"
        assert any(line.startswith(f"| {name}") and line.endswith(end) for line in page.splitlines())


def test_steps_of_the_page_are_those_of_the_profiles(page):
    text = " ".join(page.split())
    current, large = scaling.CURRENT, scaling.LARGE
    assert (
        f"`llama-3.1-8b-current`, {current.prompts} prompts x {current.group} responses, {current.in_forward} in a"
        in text
    )
    assert f"`llama-3.1-70b`, {large.prompts} x {large.group}, {large.in_forward} in a forward pass" in text
    tokens = {(step.prompt, step.completion) for step in (current, large, scaling.MEASURED)}
    assert tokens == {(512, 512)}
    assert "512 tokens each" in text


def test_sentences_of_the_page_have_the_figures_of_the_tables(page):
    text = " ".join(page.split())
    layers, completion = 32, scaling.CURRENT.completion
    slow = [completion * UNSLOTH.layer * count for count in (layers, 80)]
    fast_own = scaling.seconds(replace(BY_NAME["own 1"], engine=replace(OWN, rate=UNSLOTH.rate)))["training"]
    large_passes = replace(BY_NAME["70B 4+4"], step=replace(scaling.LARGE, in_forward=16))
    left = scaling.H100["gpu"]["memory_gib"] - sum(scaling.training_memory(large_passes).values())
    spare = scaling.H100["gpu"]["memory_gib"] - sum(scaling.training_memory(BY_NAME["70B 1"]).values())
    rebuilding = scaling.REBUILT["seconds"]["reward"] - scaling.PLAIN["seconds"]["reward"]
    more = whole(BY_NAME["70B 56+8"]) / whole(BY_NAME["70B 4+4"]) - 1
    for sentence in (
        f"(c) takes {OWN.layer / UNSLOTH.layer:.1f} times as long for a token, and {UNSLOTH.rate / OWN.rate:.1f} times as",
        f"at every call adds {rebuilding:.1f} s",
        f"the H200, which reads {scaling.MEMORY_H200 / scaling.MEMORY:.1f} times as fast",
        f"would train {fast_own:.1f} s a step, not {scaling.seconds(BY_NAME['own 1'])['training']:.1f}",
        f"At the rate of (c) it would take {SERVER.rate / OWN.rate:.1f} times as long",
        f"at least {slow[0]:.1f} s in 8B and {slow[1]:.1f} s in 70B",
        f"only {whole(BY_NAME['unsloth']) / whole(BY_NAME['server 4+4']):.1f} times as fast as Unsloth on one",
        f"of {scaling.H100['gpu']['memory_gib']} GiB with {spare:.1f} GiB to spare",
        f"leave {left:.1f} GiB free",
        f"in {100 * more:.0f} % more time",
        f"they take {scaling.seconds(BY_NAME['70B 56+8'])['to server']:.0f} s more to the server",
    ):
        assert sentence in text

    def with_responses(count):
        return scaling.token_seconds(scaling.Plan(replace(scaling.CURRENT, prompts=count, group=1), UNSLOTH))

    floor = UNSLOTH.layer * layers
    assert with_responses(195) == pytest.approx(floor)
    assert with_responses(196) > floor
    assert "floor for up to 195 responses" in text


def test_sentences_of_the_page_have_the_figures_of_the_decoding(page):
    text = " ".join(page.split())
    found = scaling.DECODED

    def kernels(engine, letter, name):
        listed = found[engine]["variants"][letter]["profile"]["kernels"]
        return sum(kernel["ms_per_token"] for kernel in listed if name in kernel["name"])

    bitsandbytes = kernels("nf4", "a", "gemm_4bit")
    differences = [
        found[engine]["sampler"]["own_sampler_against_own_trainer"] for engine in ("nf4", "nf4_rows", "bf16")
    ]
    for sentence in (
        f"no kernel ran in {100 * found['nf4']['variants']['a']['profile']['idle_share']:.1f} % of the time",
        f"Of the 12.38 ms, {bitsandbytes:.1f} are bitsandbytes'",
        f"(`gemm_4bit_simt` {kernels('nf4', 'a', 'simt'):.2f}, `gemm_4bit_sm80` {kernels('nf4', 'a', 'sm80_m16'):.2f})",
        f"takes {kernels('nf4_rows', 'g', '::rows<'):.1f} ms for what takes bitsandbytes {bitsandbytes:.1f}",
        "{:.3f} with bitsandbytes' product, {:.3f} with the own one, {:.3f} in bfloat16".format(*differences),
    ):
        assert sentence in text, sentence
    assert found["nf4"]["settings"]["cudagraph_mode"] == "FULL_AND_PIECEWISE"


def test_conclusions_of_the_page_follow_from_the_measurements():
    read = gpu_memory.weights(scaling.MEASURED.architecture, load_in_4bit=True) * GIB
    h100, h200 = scaling.H100["seconds_per_step"], scaling.H200["seconds_per_step"]
    assert read / scaling.MEMORY < scaling.token(h100) / 7
    assert scaling.token(h200) == pytest.approx(scaling.token(h100), rel=0.02)
    assert h200["loss"] == pytest.approx(0.8 * h100["loss"], rel=0.05)


def test_conclusions_of_the_page_follow_from_the_plan():
    parts = {name: scaling.seconds(plan) for name, plan in BY_NAME.items()}
    assert parts["unsloth"]["sampling"] < 1.05 * parts["measured"]["sampling"]
    assert parts["unsloth"]["training"] == max(parts["unsloth"].values())
    assert all(49.5 < parts[name]["sampling"] < 50.5 for name in ("own 1", "own 8", "own 64"))
    assert 5.5 < whole(BY_NAME["own 8"]) / whole(BY_NAME["server 4+4"]) < 6.5
    for one, other in (("server 56+8", "server 4+4"), ("70B 56+8", "70B 4+4")):
        assert BY_NAME[one].step.responses == 7 * BY_NAME[other].step.responses
    assert whole(BY_NAME["server 56+8"]) < whole(BY_NAME["server 4+4"])
    assert whole(BY_NAME["70B 1"]) > 300
    assert parts["70B 4+4"]["training"] > whole(BY_NAME["70B 4+4"]) / 2
    assert parts["70B 4+4"]["exchange"] == pytest.approx(2, abs=0.05)
    assert 0.8 * parts["70B 56+8"]["training"] < parts["70B 56+8"]["exchange"] < parts["70B 56+8"]["training"]


# What was measured


def test_plan_reproduces_the_measured_step():
    parts = scaling.seconds(scaling.PLANS[0])
    found = files.read_json(ROOT / "reports/gpu/nvidia-h100-80gb-hbm3.json")["llama-3.1-8b"]["seconds_per_step"]
    assert parts["sampling"] == pytest.approx(found["generation"], rel=0.01)
    assert [parts[name] for name in ("rewards", "training", "update")] == pytest.approx(
        [found[name] for name in ("reward", "loss", "update")]
    )
    assert (parts["exchange"], parts["to server"]) == (0, 0)
    assert sum(parts.values()) == pytest.approx(found["step"], rel=0.02)


def test_measured_step_is_of_the_shape_that_the_rehearsal_says():
    step = scaling.MEASURED
    # Unsloth takes whole groups in a forward pass, where the profile says one response.
    assert (step.prompts, step.group, step.in_forward, step.prompt, step.optimizer) == (
        1,
        3,
        3,
        512,
        "paged_adamw_8bit",
    )
    for found in (scaling.H100, scaling.H200):
        assert scaling.measured_step(found) == step
        assert found["completion_tokens_per_step"] == step.responses * step.completion == 1536


def test_row_a_of_the_comparison_is_the_rehearsal_of_the_h100():
    compared = files.read_json(ROOT / "bench/gpu_step.json")
    assert (compared["gpu"], compared["profile"]) == (scaling.H100["gpu"]["name"], scaling.PROFILE)
    assert compared["variants"]["a"]["seconds"] == scaling.H100["seconds_per_step"]


def test_rates_are_the_quotients_by_hand():
    rehearsed, plain = scaling.H100["seconds_per_step"], scaling.PLAIN["seconds"]
    flops = 6 * N_8B * 3 * (512 + 512)
    assert UNSLOTH.rate == pytest.approx(flops / rehearsed["loss"])
    assert OWN.rate == pytest.approx(flops / plain["loss"])
    assert UNSLOTH.layer == pytest.approx(rehearsed["generation"] / 512 / 32)
    assert OWN.layer == pytest.approx(plain["generation"] / 512 / 32)
    assert (scaling.REWARD, OWN.update) == pytest.approx((rehearsed["reward"] / 3, plain["update"] / LORA_8B))


def test_rates_are_below_the_data_sheet():
    assert OWN.rate < SERVER.rate < UNSLOTH.rate < scaling.FLOPS
    assert scaling.rate(scaling.H200["seconds_per_step"]) < scaling.FLOPS


# Memory


@pytest.mark.parametrize(("step", "weights", "lora"), [(STEP_8B, N_8B, LORA_8B), (STEP_70B, N_70B, LORA_70B)])
def test_models_have_their_published_sizes(step, weights, lora):
    """Compare the weights with the safetensors of the model cards, and LoRA with PEFT's count.

    LoRA has rank 32, on all projections.
    """
    assert (step.weights, step.lora) == (weights, lora)


def test_memory_is_the_sum_by_hand():
    found = {part: value * GIB for part, value in scaling.training_memory(scaling.Plan(STEP_8B, OWN, 2)).items()}
    tokens = 320 + 8 * 128
    others = 2 * 128256 * 4096 + 65 * 4096
    assert found["weights"] == pytest.approx((N_8B - others) * (0.5 + (1 + 4 / 256) / 64) + 2 * others)
    assert found["LoRA"] == pytest.approx(16 * LORA_8B)
    inside = 2 * tokens * (32 * 4096 + 8 * 4096 + 4 * 14336)
    assert found["activations"] == pytest.approx(inside + 10 * 8 * 128 * 128256)
    # Of half the step: 16 responses, two times 32 layers of 8 heads of 128 numbers of 2 bytes.
    assert found["cache"] == pytest.approx(16 * 448 * 2 * 32 * 8 * 128 * 2)
    assert found["gathered"] == 0


def test_optimizer_in_8_bits_takes_less():
    paged = scaling.Plan(replace(STEP_8B, optimizer="paged_adamw_8bit"), OWN)
    assert scaling.training_memory(paged)["LoRA"] * GIB == pytest.approx(10 * LORA_8B)


def test_sharding_divides_weights_and_lora_and_gathers_two_layers_and_the_output():
    whole_, part = (scaling.training_memory(scaling.Plan(STEP_70B, SERVER, 4, 4, sharded)) for sharded in (False, True))
    assert (part["weights"], part["LoRA"]) == pytest.approx((whole_["weights"] / 4, whole_["LoRA"] / 4))
    layer = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672
    assert part["gathered"] * GIB == pytest.approx(2 * (2 * layer + 128256 * 8192))


def test_server_holds_bfloat16_weights_and_all_responses():
    found = scaling.serving_memory(scaling.Plan(STEP_8B, SERVER, 4, 4)) * GIB
    assert found == pytest.approx((2 * N_8B + 32 * 448 * 131_072) / 4)


def test_own_passes_hold_a_prompt_once_a_group_and_others_once_a_response():
    assert scaling.sequences(STEP_8B, 16, packed=True) == (2, 320 + 8 * 128, 8 * 128)
    assert scaling.sequences(STEP_8B, 4, packed=True) == (1, 320 + 4 * 128, 4 * 128)
    assert scaling.sequences(STEP_8B, 16, packed=False) == (16, 448, 128)


# Time


def test_seconds_with_a_server_are_the_sums_by_hand():
    found = scaling.seconds(scaling.Plan(STEP_8B, SERVER, 4, 4))
    rate, link = 0.35 * 989e12, 0.7 * 450e9
    assert found["training"] == pytest.approx(8 * N_8B * 8 * 448 / rate)
    assert found["exchange"] == pytest.approx(8 * LORA_8B * 0.75 / link)
    assert found["to server"] == pytest.approx(2 * N_8B / link)
    read = (2 * N_8B + 32 * (320 + 64) * 131_072) / (0.6 * 3.35e12)
    assert found["sampling"] == pytest.approx((128 * read + 2 * N_8B * 4 * 320 / rate) / 4)
    assert found["rewards"] == pytest.approx(8 * scaling.REWARD)


def test_sharded_weights_are_gathered_for_each_pass_and_for_the_server():
    found = scaling.seconds(scaling.Plan(replace(STEP_70B, in_forward=4), SERVER, 4, 4, sharded=True))
    ring = 0.75 / (0.7 * 450e9)
    # Eight responses in two passes, each of two forward and one backward.
    assert found["exchange"] == pytest.approx((2 * 3 * 2 * N_70B + 8 * LORA_70B) * ring)
    assert found["to server"] == pytest.approx(2 * N_70B * (ring + 1 / (0.7 * 450e9)))
    assert found["update"] == pytest.approx(SERVER.update * LORA_70B / 4)


def test_more_than_a_machine_of_gpus_exchanges_over_the_network():
    assert (scaling.link(8), scaling.link(9)) == pytest.approx((0.7 * 450e9, 0.7 * 50e9))
    beside = scaling.seconds(scaling.Plan(replace(STEP_8B, prompts=8), SERVER, 8, 8))
    assert beside["exchange"] == pytest.approx(8 * LORA_8B * 7 / 8 / (0.7 * 450e9))
    assert beside["to server"] == pytest.approx(2 * N_8B / (0.7 * 50e9))


def test_token_takes_the_floor_until_memory_or_products_take_longer():
    def token(engine, responses):
        return scaling.token_seconds(scaling.Plan(replace(scaling.CURRENT, prompts=responses, group=1), engine))

    weights = gpu_memory.weights(scaling.CURRENT.architecture, load_in_4bit=True) * GIB
    assert token(UNSLOTH, 3) == token(UNSLOTH, 128) == pytest.approx(32 * UNSLOTH.layer)
    assert token(UNSLOTH, 400) == pytest.approx((weights + 400 * 768 * 131_072) / (0.6 * 3.35e12))
    assert token(OWN, 1024) == pytest.approx(2 * N_8B * 1024 / OWN.rate)


@pytest.mark.parametrize(("engine", "serving"), [(UNSLOTH, 0), (OWN, 0), (SERVER, 4)])
def test_more_gpus_never_take_more_time_for_the_same_step(engine, serving):
    steps = [scaling.seconds(scaling.Plan(replace(STEP_8B, prompts=8), engine, gpus, serving)) for gpus in (1, 2, 4, 8)]
    for fewer, more in pairwise(steps):
        assert more["training"] == pytest.approx(fewer["training"] / 2)
        assert more["rewards"] == pytest.approx(fewer["rewards"] / 2)
        assert more["sampling"] <= fewer["sampling"]
        assert more["exchange"] > fewer["exchange"] >= 0
    assert steps[0]["exchange"] == 0


def test_every_planned_step_can_be_shared_out_evenly():
    for plan in scaling.PLANS:
        assert plan.step.prompts % plan.training == 0
        assert plan.share % plan.step.in_forward == 0
    assert {plan.training + plan.serving for plan in scaling.PLANS} == {1, 8, 64}
