"""Write tests/pinned_signatures.json: what the pinned Unsloth, vLLM and plugin take.

It is read from their wheels.

python tests/pinned_signatures.py FOLDER

FOLDER comes from `pip download --no-deps` of the versions in requirements.lock.

The packages need CUDA to be imported, so their source is parsed.
"""

import ast
import json
import sys
import zipfile
from pathlib import Path

SIGNATURES = Path(__file__).with_suffix(".json")
# Wheel, file and name of what is called; a name of a class stands for its fields if it has no
# __init__.
CALLED = {
    "FastLanguageModel.from_pretrained": ("unsloth", "unsloth/models/loader.py"),
    "FastLlamaModel.get_peft_model": ("unsloth", "unsloth/models/llama.py"),
    "load_vllm": ("unsloth_zoo", "unsloth_zoo/vllm_utils.py"),
    "load_lora": ("unsloth_zoo", "unsloth_zoo/vllm_utils.py"),
    "LLM.__init__": ("vllm", "vllm/entrypoints/llm.py"),
    "LLM.generate": ("vllm", "vllm/entrypoints/llm.py"),
    "EngineArgs": ("vllm", "vllm/engine/arg_utils.py"),
    "BaseFrontendArgs": ("vllm", "vllm/entrypoints/launchers/cli_args.py"),
    "FrontendArgs": ("vllm", "vllm/entrypoints/launchers/cli_args.py"),
    "SamplingParams": ("vllm", "vllm/sampling_params.py"),
    "LoRARequest": ("vllm", "vllm/lora/request.py"),
    "CompletionOutput": ("vllm", "vllm/outputs.py"),
}


def parameters(tree: ast.Module, name: str) -> list[str]:
    """Return the parameters of a function or method, or the fields of a class, without self."""
    node = tree
    for part in name.split("."):
        kinds = (ast.ClassDef, ast.FunctionDef)
        node = next(child for child in node.body if isinstance(child, kinds) and child.name == part)
    if isinstance(node, ast.ClassDef):
        return [child.target.id for child in node.body if isinstance(child, ast.AnnAssign)]
    arguments = node.args
    return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg != "self"]


def literal(tree: ast.Module, name: str) -> list:
    """Return the values of a `name = Literal[...]`."""
    node = next(n for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == name)
    return [element.value for element in node.value.slice.elts]


def main() -> None:
    """Read the wheels in the folder named on the command line."""
    wheels = {path.name.split("-")[0]: path for path in Path(sys.argv[1]).glob("*.whl")}

    def tree(wheel: str, file: str) -> ast.Module:
        with zipfile.ZipFile(wheels[wheel]) as archive:
            return ast.parse(archive.read(file))

    names = ("unsloth", "unsloth_zoo", "vllm", "vllm_bnb_plugin")
    found = {
        "versions": {name.replace("_", "-"): wheels[name].name.split("-")[1] for name in names},
        "parameters": {name: sorted(parameters(tree(*place), name)) for name, place in CALLED.items()},
        "vllm_lora_ranks": literal(tree("vllm", "vllm/config/lora.py"), "MaxLoRARanks"),
    }
    SIGNATURES.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
