"""Can a run read what it needs from the Hugging Face hub?

Asked before the run, in two small requests for each repository.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpro_empathy import files, packaged_models, params
from gpro_empathy.machine import GIB

# What keeps a run from a repository, and what to do; {id} and {revision} are filled in.
PROBLEMS = {
    "no token": "is gated or private, and no Hugging Face token is found; ask for access at {page}, "
    "then set HF_TOKEN or run `hf auth login`",
    "wrong token": "the hub refuses the Hugging Face token; make a new one at {site}/settings/tokens and set HF_TOKEN, or "
    "run `hf auth login`",
    "no access": "the account of the Hugging Face token has no access; ask for it at {page}, and let the token read gated "
    "repositories",
    "no such id": "the hub has no such {kind}, or a private one; check its spelling",
    "no such revision": "the hub has no revision {revision!r} of it; check the commit",
    "no network": "the hub cannot be reached and the cache has no whole copy; connect to the network, or copy the cache "
    "({cache}) from a machine that has one",
    "not cached": "HF_HUB_OFFLINE is set and the cache ({cache}) has no whole copy; unset it once and download with "
    "`hf download {option}{id}`",
    "trouble": "the hub answers with an error of its own; try again later",
}


@dataclass(frozen=True)
class Repository:
    """What a run reads from the hub.

    The parameter that names it, its id, `model` or `dataset`, and its commit.
    """

    setting: str
    id: str
    kind: str = "model"
    revision: str | None = None


@dataclass(frozen=True)
class Access:
    """What is known of a repository.

    `state` is `reachable`, `cached`, or a key of PROBLEMS; `in_cache` says if all of it is cached.
    """

    repository: Repository
    state: str
    in_cache: bool = False

    @property
    def problem(self) -> str | None:
        """Return what is wrong and what to do, or None."""
        if self.state not in PROBLEMS:
            return None
        from huggingface_hub import constants

        kind, site = self.repository.kind, constants.ENDPOINT
        page = f"{site}/{'datasets/' if kind == 'dataset' else ''}{self.repository.id}"
        option = "--repo-type dataset " if kind == "dataset" else ""
        facts = {"id": self.repository.id, "kind": {"dataset": "data set"}.get(kind, kind), "page": page, "site": site}
        facts |= {"revision": self.repository.revision, "cache": constants.HF_HUB_CACHE, "option": option}
        return f"{self.repository.setting} {self.repository.id!r}: {PROBLEMS[self.state].format(**facts)}"


def needed(config: params.Params) -> list[Repository]:
    """Return the repositories that a run with these parameters reads.

    There are none for the embedded default.
    """
    local = {packaged_models.SMOLLM2, *packaged_models.ENCODERS, "random"}
    repositories = [
        Repository("policy.model", config.policy.model, revision=config.policy.revision),
        Repository("rewards.similarity_model", config.rewards.similarity_model, revision=config.rewards.similarity_revision),
        Repository("train_scorer.encoder", config.train_scorer.encoder, revision=config.train_scorer.revision),
    ]  # fmt: skip
    if config.prepare.source == "hub":
        repositories.append(
            Repository("prepare.hub_dataset", config.prepare.hub_dataset, "dataset", config.prepare.hub_revision)
        )
    return [
        repository for repository in repositories if repository.id not in local and not Path(repository.id).is_dir()
    ]


def look_up(repositories: Sequence[Repository]) -> list[Access]:
    """Ask the hub for every repository, or with HF_HUB_OFFLINE the cache alone."""
    if not repositories:
        return []
    from huggingface_hub import HfApi, constants, get_token

    cached = [in_cache(repository) for repository in repositories]
    if constants.is_offline_mode():
        return [
            Access(repository, "cached" if is_cached else "not cached", is_cached)
            for repository, is_cached in zip(repositories, cached, strict=True)
        ]
    api, token = HfApi(), get_token()
    return [
        Access(repository, ask(repository, api, token), is_cached)
        for repository, is_cached in zip(repositories, cached, strict=True)
    ]


def ask(repository: Repository, api, token: str | None) -> str:
    """Return the state of a repository as the hub tells it by `api`, a huggingface_hub.HfApi."""
    import httpx
    from huggingface_hub import errors, utils

    try:
        utils.validate_repo_id(repository.id)
        api.auth_check(repository.id, repo_type=repository.kind, token=token)
        if repository.revision is not None:
            api.repo_info(repository.id, repo_type=repository.kind, revision=repository.revision, token=token)
    except errors.GatedRepoError:  # a RepositoryNotFoundError too
        return "no access" if token else "no token"
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        return "no such id"
    except errors.RevisionNotFoundError:
        return "no such revision"
    except errors.HfHubHTTPError as error:
        known = {401: "wrong token" if token else "no such id", 403: "no access", 404: "no such id"}
        return known.get(error.response.status_code, "trouble")
    except (httpx.HTTPError, OSError):
        return "cached" if in_cache(repository) else "no network"
    return "reachable"


def separate_disk() -> float | None:
    """Return the GiB that are free where the hub's cache lies.

    None if that is the disk of the working folder.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).absolute()
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    return None if existing.stat().st_dev == Path.cwd().stat().st_dev else shutil.disk_usage(existing).free / GIB


def in_cache(repository: Repository) -> bool:
    """Tell whether the cache holds a whole copy.

    Whole means: of a model all weights, of a data set what `datasets` made of it.
    """
    from huggingface_hub import constants, errors, try_to_load_from_cache

    if repository.kind == "dataset":
        home = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
        return any((home / repository.id.replace("/", "___")).rglob("*.arrow"))
    try:
        config = try_to_load_from_cache(
            repository.id, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=repository.revision
        )
    except errors.HFValidationError:
        return False
    return isinstance(config, str) and _has_weights(Path(config).parent)


def _has_weights(folder: Path) -> bool:
    for index in folder.glob("*.index.json"):
        shards = set(files.read_json(index)["weight_map"].values())
        if all((folder / shard).is_file() for shard in shards):
            return True
    return any((folder / name).is_file() for name in ("model.safetensors", "pytorch_model.bin"))
