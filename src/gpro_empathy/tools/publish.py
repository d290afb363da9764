"""Put the adapter and a model card into a folder.

On request push it to the Hugging Face hub.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token, hf_hub_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from gpro_empathy import files, params
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters
from gpro_empathy.tools import policy_card

FOLDER = Path("tmp/publish")
REPORTS = Path("reports")
# Those whose results are published or quoted by the card.
STAGES = ("prepare", "train_grpo", "rollout", "analyse_rewards")
CODE = "src"
LICENCE, NOTICE = "LICENSE", "NOTICE"


def run(repo: str, seed: int | None, *, push: bool) -> None:
    """Write the folder, print what is in it, and push it if `push`.

    Raises:
        UserError: If the name is none that the hub takes or the base's licence allows, adapter and
            reports are not of one run, there is no token to push with, or the hub refuses.
    """
    check_name(repo)
    config = params.load_all()
    trained = adapters.find_tuned(seed, config.policy)
    base = policy_card.hub_base(trained)
    if base is None:
        raise UserError(
            f"{trained.adapter}: its base is {trained.base}, which is not on the hub; there is nothing to publish"
        )
    if policy_card.llama_version(base) and not repo.split("/")[1].startswith("Llama"):
        raise UserError(f"REPO={repo}: the licence of {base} wants a name that begins with Llama: {_suggestion(repo)}")
    check_results(dvc_status())
    if push and get_token() is None:
        raise UserError("no Hugging Face token is found; set HF_TOKEN or run `hf auth login`")
    write(repo, trained, config, base)
    _show(FOLDER)
    if policy_card.llama_version(base):
        _add_licence(base, trained.revision, needed=push)
    if not push:
        print(f"Nothing was pushed. `make publish REPO={repo} PUSH=1` pushes {FOLDER} to https://huggingface.co/{repo}")
        return
    print(f"pushed: {_push(repo)}")


def check_name(repo: str) -> None:
    """Refuse what is no owner/name of the hub.

    Raises:
        UserError: If it is none.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"REPO={repo}: {' '.join(str(error).split())}") from None
    if repo.count("/") != 1:
        raise UserError(f"REPO={repo}: give owner/name, e.g. REPO=jane/empathy-lora")


def dvc_status() -> dict[str, list]:
    """Return what `dvc status` says has changed since the stages ran, by stage.

    It is empty where nothing has.

    Raises:
        UserError: If DVC cannot say.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json", *STAGES]
    status = subprocess.run(command, capture_output=True, text=True, check=False)
    if status.returncode:
        reason = " ".join(status.stderr.split()).removeprefix("ERROR: ")
        raise UserError(f"`dvc status` cannot tell of which run the results are ({reason}); run `make reproduce`")
    return json.loads(status.stdout)


def check_results(status: Mapping[str, list]) -> None:
    """Refuse results that are not of one run of the settings in params.yaml.

    Code that has changed since is let through: it does not change what was measured.

    Args:
        status: As `dvc_status` returns it.

    Raises:
        UserError: If a setting, an input or a result has changed since a stage ran, is missing, or
            a stage has not run.
    """
    for stage, changes in status.items():
        changed = {
            path: state
            for change in changes
            if isinstance(change, dict)  # not "changed command"
            for states in change.values()
            for path, state in states.items()
            if Path(path).parts[0] != CODE
        }
        settings = changed.pop(params.PARAMS.name, {})
        if settings == "new":
            raise UserError(f"dvc.lock: no run of {stage} is recorded; run `make reproduce`")
        if settings:
            raise UserError(
                f"{params.PARAMS}: {', '.join(settings)} has changed since {stage} ran; run `make reproduce`, or undo the "
                f"change with `git checkout {params.PARAMS}`"
            )
        for path, state in changed.items():
            raise UserError(f"{path}: {state} since {stage} ran, as `dvc status` says; run `make reproduce`")


def write(repo: str, trained: adapters.Tuned, config: params.Params, base: str) -> None:
    """Write to tmp/publish, atomically, what is pushed.

    It is the adapter, which names its base here, the card and a notice.
    """
    settings, data, analysis = (
        files.read_json(REPORTS / name) for name in ("training/settings.json", "data.json", "reward_analysis.json")
    )
    card = policy_card.write(repo, trained, config, settings, data, analysis)
    with files.atomic_path(FOLDER) as folder:
        folder.mkdir()
        shutil.copyfile(trained.adapter / adapters.WEIGHTS, folder / adapters.WEIGHTS)
        adapter = files.read_json(trained.adapter / "adapter_config.json")
        adapter |= {"base_model_name_or_path": base, "revision": trained.revision}
        files.write_json(folder / "adapter_config.json", adapter)
        files.write_text(folder / "README.md", card)
        if version := policy_card.llama_version(base):
            files.write_text(
                folder / NOTICE,
                f"Llama {version} is licensed under the Llama {version} Community License, "
                "Copyright © Meta Platforms, Inc. All Rights Reserved.\n",
            )


def _show(folder: Path) -> None:
    print((folder / "README.md").read_text(encoding="utf-8"))
    print(f"{folder}:")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name:<28} {path.stat().st_size:>12,} bytes")


def _add_licence(base: str, revision: str | None, *, needed: bool) -> None:
    """Copy the base's licence into the folder.

    The Llama licences demand it of whoever passes on what is made of the base.
    """
    try:
        path = hf_hub_download(base, LICENCE, revision=revision)
    except (httpx.HTTPError, OSError) as error:
        if needed:
            raise UserError(
                f"{LICENCE} of {base}: cannot be fetched ({_words(error)}); the licence must go with it"
            ) from None
        print(f"  {LICENCE:<28} will be fetched from {base}; it could not be now")
        return
    shutil.copyfile(path, FOLDER / LICENCE)
    print(f"  {LICENCE:<28} of {base}")


def _push(repo: str) -> str:
    api = HfApi()
    try:
        api.create_repo(repo, exist_ok=True)
        return api.upload_folder(
            repo_id=repo, folder_path=FOLDER, commit_message="Adapter and model card, by GPRO-EMPATHY"
        ).commit_url
    # What the hub refuses is an HTTPError; a card that it finds invalid, a ValueError; offline
    # mode, an OSError.
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise UserError(
            f"REPO={repo}: the hub did not take it ({_words(error)}); check the name, the network, and that the token may "
            "write there"
        ) from None


def _suggestion(repo: str) -> str:
    owner, name = repo.split("/")
    return f"REPO={owner}/Llama-{name}"


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
