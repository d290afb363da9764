"""Tell where the time of a token goes: three responses decoded with LoRA, in several ways.

The ways give the same numbers up to rounding.

Random weights of a profile's architecture, rounded to NF4 and kept in bfloat16, so that the 4-bit
engine and the 16-bit engine hold the same numbers. Each engine runs in a process of its own, under
a limit of its own; one that fails stops no other. Seconds a token are those of the whole call of
vLLM, less a call for one token.

    a  NF4 through Unsloth, by bitsandbytes' product
    b  as a, with graphs forced (run where the log of a shows none)
    c  as a, without LoRA
    d  bfloat16 through Unsloth, with LoRA           e   with the LoRA matrices merged for the call
    f  bfloat16 without LoRA
    g  NF4 as the profile is, by this package's product for few rows     h   as g, without LoRA

Writes  bench/gpu_decode.json    (tmp/bench without a GPU: vLLM alone, on a small model)
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROFILE = "llama-3.1-8b"
RESPONSES, RANK, REPEATS = 3, 32, 2
POLICY, BUILT = "models/policy", "built"  # below the folder of models; the second says that they are whole
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# What a log says where CUDA graphs are recorded, or lost.
EVIDENCE = re.compile(
    r"compilation_config=2|Patched vLLM's piecewise|Capturing CUDA graphs|Graph capturing finished|enforce_eager|cudagraph|"
    r"Model Runner V|Asynchronous scheduling|attention backend|FLASH_ATTN|Merged-weight|falling back to vLLM LoRA|"
    r"default LoRA kernel|FlashInfer|Using .* backend"
)
ENGINES = {
    "nf4": {"letters": {"a": "trl", "c": "base"}, "profile": ("a",)},
    "nf4_forced": {"letters": {"b": "trl"}, "environment": {"UNSLOTH_VLLM_PIECEWISE_COMPILE": "1"}, "profile": ()},
    "bf16": {
        "letters": {"e": "trl", "d": "trl", "f": "base"},
        "environment": {"UNSLOTH_VLLM_MERGED_ROLLOUT": "1"},
        "profile": ("e", "d"),
    },
    "nf4_rows": {"letters": {"g": "trl", "h": "base"}, "profile": ("g",)},
}


def main() -> None:
    """Build the weights, run the engines one after the other, and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=256, help="tokens of a response (default 256)")
    parser.add_argument("--prompt", type=int, default=160, help="tokens of the prompt (default 160)")
    parser.add_argument(
        "--card", type=float, default=24, help="GiB of the GPU whose share vLLM gets in NF4 (default 24)"
    )
    parser.add_argument("--limit", type=int, default=270, help="seconds an engine may take (default 270)")
    parser.add_argument("--only", default="nf4,nf4_forced,bf16,nf4_rows", help="which engines")
    parser.add_argument("--models", type=Path, help="folder of models built before, or to build them in and keep")
    parser.add_argument("--steps", type=int, default=0, help="GRPO steps of each engine at two lengths (default 0)")
    parser.add_argument("--logs", type=Path, help="folder to keep the logs in")
    parser.add_argument("--output", type=Path, help="folder of the result (default bench; tmp/bench without a GPU)")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name in ("models", "output", "logs"):
        if (value := getattr(arguments, name)) is not None:
            setattr(arguments, name, value.absolute())
    if arguments.task:
        found = build(arguments) if arguments.task == "build" else run_engine(arguments.task, arguments)
        (arguments.output / f"{arguments.task}.json").write_text(json.dumps(found, allow_nan=False))
        return
    with tempfile.TemporaryDirectory(prefix="gpu-decode-") as scratch:
        arguments.models = arguments.models or Path(scratch) / "models"
        arguments.logs = arguments.logs or Path(scratch)
        arguments.logs.mkdir(parents=True, exist_ok=True)
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Run the engines and write the result anew after each.

    The result also keeps the engines that an earlier run measured on the same GPU.
    """
    gpu = gpu_name()
    folder = arguments.output or ROOT / ("bench" if gpu else "tmp/bench")
    path = folder / "gpu_decode.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    head = {
        "gpu": gpu,
        "tokens": arguments.tokens,
        "prompt_tokens": arguments.prompt,
        "responses": RESPONSES,
        "rank": RANK,
    }
    result = (result if all(result.get(k) == v for k, v in head.items()) else {}) | head
    if not (arguments.models / BUILT).is_file():
        child(arguments, "build")
    for name in arguments.only.split(","):
        if name == "nf4_forced" and "b" not in result and graphs(result.get("nf4", {}).get("log", [])):
            result[name] = {"skipped": "the log of a shows that graphs were recorded"}
        else:
            result[name] = child(arguments, name)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2, sort_keys=True, allow_nan=False) + "\n")
        for letter, row in result[name].get("variants", {}).items():
            print(
                f"({letter}) {row['ms_per_token']:.2f} ms a token, {row['first_token_ms']:.0f} ms for one token",
                flush=True,
            )
        if "failed" in result[name] or "skipped" in result[name]:
            print(f"({name}) {result[name]}"[:1500], flush=True)


def graphs(log: list[str]) -> bool:
    """Return whether a log speaks of recorded graphs and not of their loss."""
    text = "\n".join(log)
    return "apturing" in text and "compilation_config=2 instead" not in text


def gpu_name() -> str | None:
    """Return the name of the first GPU as the driver has it, or None if there is none.

    This does not load torch here.
    """
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def child(arguments: argparse.Namespace, name: str) -> dict:
    """Run a task in a process of its own and return what it found.

    If it failed or took too long, return the end of its log.
    """
    log = arguments.logs / f"{name}.log"
    command = [sys.executable, __file__, "--task", name, "--output", str(arguments.logs)]
    for option in ("models", "tokens", "prompt", "card", "steps"):
        command += [f"--{option}", str(getattr(arguments, option))]
    known = os.environ | {"TOKENIZERS_PARALLELISM": "false", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}
    found = arguments.logs / f"{name}.json"
    found.unlink(missing_ok=True)
    started = time.perf_counter()
    with log.open("w") as stream:
        try:
            status = subprocess.run(
                command, stdout=stream, stderr=subprocess.STDOUT, env=known | ENGINES.get(name, {}).get("environment", {}),
                timeout=arguments.limit, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            status = f"no end within {arguments.limit} s"
    text = log.read_text(errors="replace")
    result = json.loads(found.read_text()) if found.is_file() else {}
    if status:
        result |= {"failed": status, "end": text[-1500:]}
    return result | {"log": evidence(text), "seconds": round(time.perf_counter() - started, 1)}


def evidence(log: str) -> list[str]:
    """Return the lines of a log on graphs and on what runs; of progress only where it ended."""
    lines = [line.rpartition("\r")[2][:220] for line in log.splitlines()]
    lines = [line for line in lines if EVIDENCE.search(line) and ("%|" not in line or "100%|" in line)]
    return list(dict.fromkeys(lines))[:40]


def build(arguments: argparse.Namespace) -> dict:
    """Write a rehearsal's models, which are small without a GPU.

    The policy's projections are numbers of NF4 in bfloat16.
    """
    from rehearsal import models
    from rehearsal.plan import lay_out

    os.chdir(ROOT)
    arguments.models.mkdir(parents=True, exist_ok=True)
    plan = lay_out(PROFILE, arguments.models, reduced=gpu_name() is None)
    round_as_saved()
    models.build(plan.config, plan.models, arguments.models)
    (arguments.models / BUILT).write_text("")
    return {}


def round_as_saved() -> None:
    """Have models of language saved in this process with their projections rounded to NF4."""
    import bitsandbytes.functional as nf4
    import torch

    save, device = torch.nn.Module.state_dict, "cuda" if torch.cuda.is_available() else "cpu"

    def rounded(model, *args, **kwargs):
        state = save(model, *args, **kwargs)
        for name, weight in state.items() if hasattr(model, "lm_head") else ():
            if name.rpartition(".weight")[0].endswith(PROJECTIONS):
                code, how = nf4.quantize_4bit(weight.to(device), quant_type="nf4", compress_statistics=True)
                weight.copy_(nf4.dequantize_4bit(code, how))
        return state

    torch.nn.Module.state_dict = rounded


def run_engine(name: str, arguments: argparse.Namespace) -> dict:
    """Start an engine, and measure its variants."""
    import torch

    engine = start_unsloth(name, arguments) if torch.cuda.is_available() else start_vllm(name, arguments)
    ready = time.perf_counter()
    found: dict = {"engine": engine.kind, "settings": engine.settings(), "variants": {}}
    prompt = list(range(300, 300 + arguments.prompt))
    for letter, how in ENGINES[name]["letters"].items():
        request = None if how == "base" else engine.request(merged=letter == "e")
        row = timed(engine, prompt, request, arguments.tokens, lambda letter=letter: engine.request(letter == "e"))
        if letter in ENGINES[name]["profile"] and torch.cuda.is_available():
            row["profile"] = profiled(engine, prompt, request)
        found["variants"][letter] = row
        print(letter, json.dumps({k: v for k, v in row.items() if k != "profile"}), flush=True)
        (arguments.output / f"{name}.json").write_text(json.dumps(found, allow_nan=False))
    found["peak_gib"] = torch.cuda.device_memory_used(0) / 2**30 if torch.cuda.is_available() else None
    found["sampler"] = engine.difference(prompt, arguments.output, name)
    found["seconds_of_variants"] = round(time.perf_counter() - ready, 1)
    if arguments.steps and engine.model is not None:
        (arguments.output / f"{name}.json").write_text(json.dumps(found, allow_nan=False))
        found["steps"] = steps_of(engine, arguments, name)
    return found


def steps_of(engine, arguments: argparse.Namespace, name: str) -> dict:
    """Take GRPO steps at real lengths and at the longest, and return what they took.

    The GPU memory in use after them is returned too.
    """
    import torch

    from gpro_empathy.policy import loading
    from rehearsal import lengths, results

    os.chdir(arguments.models)
    policy, grpo = engine.sections
    grpo = grpo.model_copy(update={"steps": arguments.steps, "seeds": [1]})
    found = {}
    for label, limits in {
        "real": lengths.real(policy, loading.load_tokenizer(Path(POLICY))),
        "longest": policy,
    }.items():
        # By engine: the steps of another one are not to be gone on from.
        found[label] = results.at_lengths(lengths.timed(engine.model, limits, grpo, Path("work") / name / label))
        found[label]["gpu_used_gib"] = torch.cuda.device_memory_used(0) / 2**30
        print(label, json.dumps(found[label]), flush=True)
    return found


def timed(engine, prompt: list[int], request, tokens: int, renew) -> dict:
    """Return milliseconds of a call for one token, and of each further one.

    They are medians of REPEATS calls after one to warm up.
    """
    lengths: dict[int, list[float]] = {1: [], tokens: []}
    for _ in range(REPEATS + 1):
        for length, seconds in lengths.items():
            started = time.perf_counter()
            outputs = engine.generate(prompt, length, request)
            seconds.append(time.perf_counter() - started)
            assert [len(o.outputs[0].token_ids) for o in outputs] == [length] * RESPONSES
    one, all_ = (statistics.median(seconds[1:]) for seconds in lengths.values())
    renewing = []
    for _ in range(REPEATS if request is not None else 0):
        started = time.perf_counter()
        renewed = renew()
        engine.generate(prompt, 1, renewed)
        renewing.append(time.perf_counter() - started)
    return {
        "ms_per_token": 1000 * (all_ - one) / (tokens - 1),
        "first_token_ms": 1000 * one,
        "call_seconds": [round(value, 4) for value in lengths[tokens]],
        "new_adapter_and_one_token_ms": 1000 * statistics.median(renewing) if renewing else None,
    }


def profiled(engine, prompt: list[int], request, tokens: int = 65) -> dict:
    """Return the kernels that take longest, and how much of the time of decoding no kernel runs."""
    import torch

    engine.generate(prompt, 4, request)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        engine.generate(prompt, tokens, request)
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(f"{folder}/trace.json").read_text())["traceEvents"]
    work = sorted(
        (event["ts"], event["ts"] + event["dur"], event["name"])
        for event in events
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    )
    # The prompt's pass and the last token's end are left out: the middle nine tenths are decoding
    # alone.
    first, last = work[0][0], max(end for _, end, _ in work)
    begin, finish = first + 0.08 * (last - first), first + 0.98 * (last - first)
    work = [row for row in work if begin <= row[0] and row[1] <= finish]
    busy, reached = 0.0, begin
    by_name: dict[str, list[float]] = {}
    for start, end, name in work:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
        by_name.setdefault(name, []).append(end - start)
    in_all = sum(map(sum, by_name.values()))
    table = sorted(by_name.items(), key=lambda item: -sum(item[1]))
    span = finish - begin
    return {
        "idle_share": 1 - busy / span,
        "profiled_ms_per_token": (last - first) / 1000 / tokens,
        "launches_per_token": len(work) / (span / ((last - first) / tokens)),
        "kernels": [
            {
                "name": name[:160],
                "share": sum(times) / in_all,
                "ms_per_token": sum(times) / 1000 / (span / ((last - first) / tokens)),
                "us_each": statistics.mean(times),
                "per_token": len(times) / (span / ((last - first) / tokens)),
            }
            for name, times in table[:14]
        ],
    }


def draw_adapter(named_parameters) -> None:
    """Give LoRA matrices that change the policy, the same in every engine."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(named_parameters):
        if "lora_B" in name:
            drawn = torch.randn(parameter.shape, generator=generator) * 0.01
            parameter.data.copy_(drawn.to(parameter.device, parameter.dtype))


class Engine:
    """A vLLM with LoRA: how it is asked for responses, and what it says of itself.

    It holds the trained model too, if there is any.
    """

    kind: str
    model = None

    def __init__(self, llm) -> None:
        self.llm = llm

    def generate(self, prompt: list[int], length: int, request):
        """Return vLLM's outputs for RESPONSES responses of exactly `length` tokens.

        They are asked for as TRL does.
        """
        from vllm import SamplingParams

        asked = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "min_p": 0.0, "logprobs": 0}
        prompts = [{"prompt_token_ids": prompt} for _ in range(RESPONSES)]
        return self.llm.generate(
            prompts,
            sampling_params=SamplingParams(**asked, max_tokens=length, ignore_eos=True),
            use_tqdm=False,
            lora_request=request,
        )

    def settings(self) -> dict:
        """Return what vLLM made of its arguments, as far as it bears on speed."""
        config = self.llm.llm_engine.vllm_config
        compilation, scheduler = config.compilation_config, config.scheduler_config
        return {
            "compilation_mode": str(compilation.mode),
            "cudagraph_mode": str(compilation.cudagraph_mode),
            "cudagraph_sizes": list(compilation.cudagraph_capture_sizes or []),
            "cudagraph_specialize_lora": compilation.cudagraph_specialize_lora,
            "second_model_runner": getattr(config, "use_v2_model_runner", None),
            "async_scheduling": scheduler.async_scheduling,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "enforce_eager": config.model_config.enforce_eager,
            "quantization": config.model_config.quantization,
        }

    def difference(self, prompt: list[int], folder: Path, name: str) -> dict | None:
        """Return how far the sampler's log-probabilities are from the trained model's, if any.

        Without a trained model return None.
        """
        return None


class Unsloth(Engine):
    """vLLM as Unsloth starts it beside the trained model."""

    kind = "unsloth"

    def __init__(self, model, sections: tuple) -> None:
        super().__init__(model.vllm_engine)
        self.model, self.sections = model, sections

    def request(self, merged: bool):
        """Return the request of the LoRA matrices as they are."""
        if "UNSLOTH_VLLM_MERGED_ROLLOUT" in os.environ:
            os.environ["UNSLOTH_VLLM_MERGED_ROLLOUT"] = "1" if merged else "0"
        return self.model.load_lora("adapter", load_tensors=True)

    def difference(self, prompt, folder, name):
        """Compare on sampled responses, and on those of the engine nf4.

        The other engines find the responses of nf4 in its file.
        """
        import torch

        outputs = self.generate(prompt, 64, self.request(merged=name == "bf16"))
        own = [list(o.outputs[0].token_ids) for o in outputs]
        theirs = [
            [s[t].logprob for t, s in zip(o.outputs[0].token_ids, o.outputs[0].logprobs, strict=True)] for o in outputs
        ]
        kept = folder / "sampled.json"
        if name == "nf4":
            kept.write_text(json.dumps({"ids": own, "logprobs": theirs}))
        self.model.eval()

        def trained(responses: list[list[int]]) -> list[list[float]]:
            ids = torch.tensor([prompt + row for row in responses], device="cuda")
            with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
                logits = self.model(input_ids=ids).logits[:, len(prompt) - 1 : -1].float()
            return logits.log_softmax(-1).gather(2, ids[:, len(prompt) :, None]).squeeze(2).tolist()

        def mean(one, other) -> float:
            pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
            return statistics.mean(abs(a - b) for a, b in pairs)

        found = {"own_sampler_against_own_trainer": mean(theirs, trained(own))}
        if kept.is_file() and name != "nf4":
            first = json.loads(kept.read_text())
            found["sampler_of_nf4_against_own_trainer"] = mean(first["logprobs"], trained(first["ids"]))
        return found


class Alone(Engine):
    """vLLM alone."""

    kind = "vllm"

    def request(self, merged: bool):
        """Return the request of an adapter on disk."""
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, lora_path="adapter")


def settings_of(name: str, arguments: argparse.Namespace) -> tuple:
    """Return the sections policy and train_grpo of the profile, for an engine."""
    import torch
    import yaml

    from gpro_empathy import params
    from gpro_empathy.tools import profiles

    os.chdir(ROOT)
    values = profiles.values(PROFILE)
    values["policy"] |= {"load_in_4bit": name != "bf16"}
    share = values["train_grpo"]["vllm_gpu_memory_utilization"]
    if name != "bf16" and torch.cuda.is_available():
        share *= arguments.card * 2**30 / torch.cuda.get_device_properties(0).total_memory
    values["train_grpo"]["vllm_gpu_memory_utilization"] = round(share, 4)
    whole = params.check(yaml.safe_load(yaml.safe_dump(values)), Path("params.yaml"))
    return whole.policy, whole.train_grpo


def start_unsloth(name: str, arguments: argparse.Namespace) -> Unsloth:
    """Start Unsloth with vLLM as the stage train_grpo does, in "nf4" with bitsandbytes' product."""
    from gpro_empathy.training import nf4_rows, unsloth_engine

    os.environ["UNSLOTH_RETURN_LOGITS"] = "1"
    config, grpo = settings_of(name, arguments)
    os.chdir(arguments.output)
    unsloth_engine.prepare(config)
    if name != "nf4_rows":
        nf4_rows.install = lambda folder: None
    model = unsloth_engine.load(config, grpo, arguments.models / POLICY, seed=0)
    draw_adapter(model.named_parameters())
    return Unsloth(model, (config, grpo))


def start_vllm(name: str, arguments: argparse.Namespace) -> Alone:
    """Start vLLM alone, with an adapter on disk: what can be run without a GPU."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.chdir(arguments.output)
    model = AutoModelForCausalLM.from_pretrained(arguments.models / POLICY, dtype="bfloat16")
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(PROJECTIONS)))
    draw_adapter(model.named_parameters())
    model.save_pretrained("adapter")
    from vllm import LLM

    four = {"quantization": "bitsandbytes", "load_format": "bitsandbytes"} if name != "bf16" else {}
    return Alone(
        LLM(
            model=str(arguments.models / POLICY), dtype="bfloat16", max_model_len=arguments.prompt + arguments.tokens,
            max_num_seqs=64, enable_lora=True, max_loras=1, max_lora_rank=RANK, enforce_eager=True, **four,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
