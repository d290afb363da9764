"""The model card of a tuned policy for the Hugging Face hub.

It is made from the run's settings and measured numbers alone.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCardData

from gpro_empathy import model_card, packaged_models, params, response_format
from gpro_empathy.analysis import metric_names
from gpro_empathy.policy import adapters
from gpro_empathy.report.number_format import MARKDOWN

# The model on the hub whose weights the packaged ones are, rounded to Q4_1.
HUB_SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
_LLAMA_3 = re.compile(r"\bLlama-(3\.[1-3])\b")


def hub_base(trained: adapters.Tuned) -> str | None:
    """Return the id of the base on the hub.

    None for the random model of the tests and for a folder of the user's, which are not there.
    """
    if trained.base == packaged_models.SMOLLM2:
        return HUB_SMOLLM2
    return None if trained.hub_model is None or Path(trained.hub_model).is_dir() else trained.hub_model


def llama_version(base: str) -> str | None:
    """Return 3.1, 3.2 or 3.3 if the base is a Llama under that version's Community License.

    Return None for any other base.
    """
    match = _LLAMA_3.search(base)
    return match[1] if match else None


def write(
    repo: str, trained: adapters.Tuned, config: params.Params, settings: Mapping, data: Mapping, analysis: Mapping
) -> str:
    """Return the card as Markdown with the hub's metadata.

    Args:
        repo: Id that the policy gets on the hub.
        settings: reports/training/settings.json.
        data: reports/data.json.
        analysis: reports/reward_analysis.json.
    """
    text = model_card.render(
        repo.split("/")[1],
        _about(trained),
        "## How to ask it\n\n" + _usage(repo, hub_base(trained), config),
        "## Metrics\n\n" + _metrics(trained, analysis),
        "## Data\n\n" + _data(config, data),
        "## Settings\n\n" + _settings(trained, config, settings),
        "## Limits and ethics\n\n"
        "The metrics are automatic scores by learned models. An automatic score is not empathy: a policy can raise it "
        "without becoming kinder or more helpful, and the answers can be wrong or hurtful. The model is for research. It "
        "is not for use with people in distress without the oversight of qualified people, and no help in a crisis.",
        "## Licence\n\n" + _licence(hub_base(trained)),
    )
    return f"---\n{_metadata(trained, config, data).to_yaml()}\n---\n\n{text}"


def _metadata(trained: adapters.Tuned, config: params.Params, data: Mapping) -> ModelCardData:
    base = hub_base(trained)
    llama = llama_version(base)
    licence = "apache-2.0" if base == HUB_SMOLLM2 else f"llama{llama}" if llama else None
    return ModelCardData(
        base_model=base,
        base_model_relation="adapter",
        datasets=config.prepare.hub_dataset if data["source"] == "hub" else None,
        language="en",
        library_name="peft",
        license=licence,
        pipeline_tag="text-generation",
        tags=["lora", "grpo", "empathy", "conversational"],
    )


def _about(trained: adapters.Tuned) -> str:
    base, llama = hub_base(trained), llama_version(hub_base(trained))
    lines = [
        f"LoRA matrices for {base}, trained by GRPO (Shao et al. 2024, arXiv:2402.03300) to answer a single message with "
        "empathy; made with GPRO-EMPATHY."
    ]
    if llama:
        lines.insert(0, "**Built with Llama.**")
    if base == HUB_SMOLLM2:
        lines.append(
            "They were trained on these weights rounded to Q4_1 and then to NF4. On the weights of the hub the answers are "
            "not word for word those that the metrics were measured on."
        )
    return "\n\n".join(lines)


def _usage(repo: str, base: str, config: params.Params) -> str:
    rollout = config.rollout
    return f"""\
The system message is the one it was trained with; every message is answered by itself.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

SYSTEM = {response_format.SYSTEM_PROMPT!r}
tokenizer = AutoTokenizer.from_pretrained({base!r})
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), {repo!r})
messages = [{{"role": "system", "content": SYSTEM}}, {{"role": "user", "content": "My dog died last night."}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(
    **inputs, max_new_tokens={rollout.max_completion_tokens}, do_sample=True, temperature={rollout.temperature}, top_p={rollout.top_p}
)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```"""


def _metrics(trained: adapters.Tuned, analysis: Mapping) -> str:
    start, seeds = analysis["starting_policy"], analysis["training_seeds"]
    several = (
        f", the spread between the seeds {', '.join(map(str, seeds))} included"
        if len(seeds) > 1
        else ", for these weights alone"
    )
    header = ["metric", "starting", "tuned", "difference", "p", f"seed {trained.seed} alone"]
    rows = [_metric(name, trained.seed, start, analysis["metrics"][name]) for name in analysis["metric_order"]]
    return (
        f"On {analysis['prompts']} held-out prompts of {analysis['conversations']} conversations. Difference: tuned less "
        f"starting policy ({metric_names.POLICY_LABELS[start]}), by prompt, with its {100 * analysis['confidence']:g} % "
        f"interval{several}; p is corrected for all metrics of the table. The held-out scorer was never seen in training.\n\n"
        + model_card.table(header, rows)
    )


def _metric(name: str, seed: int, start: str, values: Mapping) -> list[str]:
    digits, means = metric_names.digits(name), values["means"]
    return [
        metric_names.label_with_unit(name),
        MARKDOWN.number(means[start], digits),
        MARKDOWN.number(means["tuned"], digits),
        f"{MARKDOWN.number(values['difference'], digits, signed=True)} "
        f"{MARKDOWN.interval(values['low'], values['high'], digits)}",
        MARKDOWN.p_value(values["p_holm"]),
        MARKDOWN.number(values["by_seed"][str(seed)], digits, signed=True),
    ]


def _data(config: params.Params, data: Mapping) -> str:
    origin = {
        "embedded": "The corpus of the repository: synthetic turns, written for the project in the schema of the WASSA "
        "shared task, not by people in need.",
        "hub": f"The data set {config.prepare.hub_dataset} of the hub.",
        "wassa_csv": "Official files of the WASSA shared task on empathy in conversations; no text of them is in here.",
    }[data["source"]]
    split = data["split"].replace("_", " ")
    sizes = ", ".join(
        f"{name} {part['turns']} turns in {part['conversations']} conversations"
        for name, part in data["splits"].items()
    )
    leak = " Turns of one conversation stand on both sides, which raises every score." if split == "by turn" else ""
    return f"{origin} Split {split}: {sizes}.{leak}"


def _settings(trained: adapters.Tuned, config: params.Params, settings: Mapping) -> str:
    weights = ", ".join(f"{name} {weight:g}" for name, weight in sorted(config.rewards.weights.items()))
    terms = [
        f"training seed {trained.seed}",
        f"LoRA rank {config.policy.lora_rank}, alpha {config.policy.lora_alpha:g}",
    ]
    terms += [
        f"rewards {weights} (calibration {config.rewards.calibration}, T {config.rewards.calibration_temperature:g})"
    ]
    terms += [f"learning rate {config.train_grpo.learning_rate:g}, KL weight {config.train_grpo.kl_beta:g}"]
    terms += [f"{key} {value}" for key, value in sorted(settings.items()) if key not in ("model", "seeds")]
    return "\n".join(f"- {term}" for term in terms)


def _licence(base: str) -> str:
    if base == HUB_SMOLLM2:
        return "Apache-2.0, as the base."
    if version := llama_version(base):
        return (
            f"Built with Llama. Llama {version} is licensed under the Llama {version} Community License, Copyright © Meta "
            "Platforms, Inc. All Rights Reserved. Its text is in LICENSE, and its acceptable use policy is part of it."
        )
    return f"That of the base: see https://huggingface.co/{base}."
